// Faults that a screen reader's user would meet.
() => {
  const named = (n) => (n.getAttribute('aria-label') || n.textContent.trim() || [...(n.labels ?? [])].map((l) => l.textContent).join('')
    || (n.getAttribute('aria-labelledby') ?? '').split(' ').map((id) => document.getElementById(id)?.textContent ?? '').join('')).trim();
  const faults = [];
  for (const n of document.querySelectorAll('a, button, input, select, section, article, nav, aside section'))
    if (!named(n)) faults.push(`no name: ${n.outerHTML.slice(0, 80)}`);
  for (const n of document.querySelectorAll('img')) if (!n.hasAttribute('alt')) faults.push('img without alt');
  const ids = [...document.querySelectorAll('[id]')].map((n) => n.id);
  if (new Set(ids).size !== ids.length) faults.push('an id is given twice');
  for (const n of document.querySelectorAll('[aria-labelledby], [aria-describedby]'))
    for (const id of `${n.getAttribute('aria-labelledby') ?? ''} ${n.getAttribute('aria-describedby') ?? ''}`.split(' ').filter(Boolean))
      if (!document.getElementById(id)) faults.push(`no element ${id}`);
  let level = 0;
  for (const n of document.querySelectorAll('h1, h2, h3, h4')) {
    const now = Number(n.tagName[1]);
    if (now > level + 1) faults.push(`h${level} is followed by h${now}: ${n.textContent}`);
    level = now;
  }
  if (!document.documentElement.lang) faults.push('no language');
  if (document.querySelectorAll('main').length !== 1) faults.push('not one main');
  return faults;
}
