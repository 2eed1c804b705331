// What lies outside the window to the right, and whether the page can be scrolled there.
() => {
  const width = document.documentElement.clientWidth;
  const out = [...document.body.querySelectorAll('*')].filter((n) => n.checkVisibility() && n.getBoundingClientRect().right > width + 1);
  return [document.documentElement.scrollWidth - width, out.map((n) => n.outerHTML.slice(0, 80))];
}
