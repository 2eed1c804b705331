from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vl2v.errors import ConfigError
from vl2v.teacher.prompts import load_templates, render, text_head


def test_named_template_sets_are_available() -> None:
    assert load_templates("photo") == ("a photo of a {}",)
    assert load_templates("name") == ("{}",)


def test_clip_80_has_eighty_different_templates() -> None:
    pytest.importorskip("open_clip")
    templates = load_templates("clip-80")
    assert len(templates) == len(set(templates)) == 80
    assert all(template.count("{}") == 1 for template in templates)


def test_one_template_and_several() -> None:
    assert load_templates("a sketch of a {class}") == ("a sketch of a {class}",)
    assert load_templates(["{}", "a {}"]) == ("{}", "a {}")
    with pytest.raises(ConfigError, match="template 2"):
        load_templates(["{}", "nothing"])
    with pytest.raises(ConfigError, match="No prompt"):
        load_templates([])


def test_a_file_with_comments_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("# mine\n\n  a drawing of a {}  \n{class}, drawn\n# end\n", encoding="utf-8")
    assert load_templates(str(path)) == ("a drawing of a {}", "{class}, drawn")


@pytest.mark.parametrize(
    "line", ["no place", "{} and {}", "a {name}", "a {", "a }", "a {:d}", "a {!r}", "a {0}", "{{}}"]
)
def test_a_broken_placeholder_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text(f"# first\na {{}}\n{line}\n")
    with pytest.raises(ConfigError, match="line 3"):
        load_templates(str(path))


def test_files_that_give_no_template_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Unknown prompts"):
        load_templates(str(tmp_path / "nothing.txt"))
    with pytest.raises(ConfigError, match="Unknown prompts"):
        load_templates(str(tmp_path))
    (tmp_path / "latin.txt").write_bytes(b"ein K\xe4tzchen {}\n")
    with pytest.raises(ConfigError, match="Unknown prompts"):
        load_templates(str(tmp_path / "latin.txt"))
    (tmp_path / "empty.txt").write_text("# only this\n")
    with pytest.raises(ConfigError, match="contains no template"):
        load_templates(str(tmp_path / "empty.txt"))


@pytest.mark.parametrize(
    ("template", "phrase", "text"),
    [
        ("a photo of a {}", "elephant", "a photo of an elephant"),
        ("a photo of a {}", "dog", "a photo of a dog"),
        ("a {}", "hour", "an hour"),
        ("a {}", "unicorn", "a unicorn"),
        ("A {class}.", "ant", "An ant."),
        ("a photo of the {}", "elephant", "a photo of the elephant"),
        ("data {}", "elephant", "data elephant"),
        ("{}", "alarm clock", "alarm clock"),
        ("a bad photo of a {} in a box", "owl", "a bad photo of an owl in a box"),
        ("a {}", "{class}", "a {class}"),
    ],
)
def test_templates_are_rendered_with_class_names(template: str, phrase: str, text: str) -> None:
    assert render(template, phrase) == text


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 9), st.integers(0, 99))
def test_the_text_head_agrees_with_a_loop(classes: int, templates: int, dimension: int, seed: int) -> None:
    embeddings = np.random.default_rng(seed).normal(size=(classes, templates, dimension)) + 0.1
    head = text_head(torch.from_numpy(embeddings))
    for k in range(classes):
        total = np.zeros(dimension)
        for t in range(templates):
            total += embeddings[k, t] / np.sqrt((embeddings[k, t] ** 2).sum())
        if np.sqrt((total**2).sum()) < 1e-3:
            continue  # opposite prompts cancel out, so there is no direction to compare
        np.testing.assert_allclose(head[k].numpy(), total / np.sqrt((total**2).sum()), atol=1e-9)
        assert abs(float(head[k].norm()) - 1) < 1e-9


def test_the_text_head_has_the_same_dtype_and_refuses_another_shape() -> None:
    assert text_head(torch.ones(2, 3, 4)).dtype == torch.float32
    with pytest.raises(ValueError, match="expected"):
        text_head(torch.ones(2, 4))


def test_escaped_braces_are_preserved_and_the_name_is_inserted() -> None:
    (template,) = load_templates("{{}} a {class} {{x}}")
    assert render(template, "owl") == "{} an owl {x}"


def test_inflect_is_imported_under_its_documented_name() -> None:
    import typeguard

    from vl2v.teacher.prompts import _engine

    before = typeguard.typechecked
    engine = _engine()
    assert typeguard.typechecked is before
    assert "typeguard" not in str(engine.a.__code__.co_names), "rewriting its functions takes seconds in every process"
    assert engine.a("hour") == "an hour"
