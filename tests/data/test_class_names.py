"""Lists of class names, and folders of images without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vl2v.api import make_config
from vl2v.config import DataConfig, RunConfig
from vl2v.data.classes import class_names, held_out_folders
from vl2v.data.contents import Contents
from vl2v.data.folder import FaultyDataError
from vl2v.data.unlabelled_folder import UnlabelledFolder
from vl2v.errors import ConfigError, DataError
from vl2v.validation import parse

CLASSES = ("cat", "guinea pig")


def settings(**more: object) -> dict[str, object]:
    data = more.pop("data", {})
    assert isinstance(data, dict)
    return {"data": {"root": "x", "classes": list(CLASSES)} | data, "teacher": {"spec": "t"}, "student": {}} | more


def image(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, len(path.name), len(path.parts))).save(path)


@pytest.mark.parametrize(
    "text",
    ["cat,guinea pig", " cat , guinea_pig, ", ["cat", "guinea  pig"], ("cat", "guinea_pig"), "cat,,guinea pig"],
)
def test_names_are_read_as_in_training(text: str | list[str]) -> None:
    assert class_names(text) == CLASSES


@pytest.mark.parametrize(
    "content",
    [b"cat\nguinea_pig\n", b"\xef\xbb\xbfcat\r\n\r\n  guinea pig  \r\n", b"# animals\ncat\n\n\nguinea pig"],
    ids=["plain", "bom-crlf-blank", "comment"],
)
@pytest.mark.parametrize("name", ["names.txt", "names, all", "names"])
def test_a_file_has_one_name_per_line(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert class_names(tmp_path / name) == class_names(str(tmp_path / name)) == CLASSES


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("", "Too few classes are given."),
        (" , ,", "found: none"),
        ([], "found: none"),
        ("cat", "found: cat"),
        ("cat,cat", "given twice"),
        ("guinea pig,cat,Guinea_Pig", "guinea pig (--classes) and Guinea Pig (--classes)"),
        (["cat", "do\x07g"], "needs a name"),
        ("cat,_-_", "needs a name"),
        ("cat,..", "needs a name"),
        (["cat", "!!!"], "needs a name"),
        ("absent.txt", "contains no class names"),
        ("lists/absent", "No such file"),
    ],
)
def test_an_empty_or_wrong_list_is_refused(names: str | list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        class_names(names)
    assert message in str(caught.value)
    assert caught.value.expected


@pytest.mark.parametrize(
    ("content", "message", "step"),
    [
        (b"", "Too few classes", "--classes cat,dog"),
        (b"cat\n", "Too few classes", "--classes cat,dog"),
        (b"cat\ntench, Tinca tinca\n", "line 2 has a comma", "classes.yaml"),
        (b"- cat\n- dog\n", "line 1 looks like YAML or JSON", "without list marks"),
        (b'["cat", "dog"]\n', "line 1 looks like YAML or JSON", "without list marks"),
        (b"cat\ndog\n\nDog\n", "given twice", "keep one"),
        (b"cat,dog\n", "line 1 has a comma", "its own line"),
        (b"cat\nc\xe4t\n", "contains no class names", "UTF-8"),
        ("cat\ndog\n".encode("utf-16"), "contains no class names", "UTF-8"),
        ("cat\ndog\n".encode("utf-16-le"), "contains no class names", "UTF-8"),
    ],
    ids=["empty", "one", "comma", "yaml", "json", "twice", "one-line", "latin-1", "utf-16", "utf-16-without-mark"],
)
def test_a_file_that_is_not_a_list_is_refused(tmp_path: Path, content: bytes, message: str, step: str) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        class_names(tmp_path / "names.txt")
    assert message in caught.value.problem
    assert step in (caught.value.next_step or "")


def test_a_folder_instead_of_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="contains no class names"):
        class_names(str(tmp_path))


def test_settings_store_the_names_instead_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\nguinea pig\n")
    config = parse(DataConfig, {"root": "x", "classes": str(tmp_path / "names.txt")}, "the settings")
    assert config.classes == CLASSES
    assert parse(DataConfig, config.model_dump(mode="json"), "config.yaml") == config
    assert parse(DataConfig, {"root": "x", "classes": []}, "config.yaml").classes == ()
    with pytest.raises(ConfigError, match="classes"):
        parse(DataConfig, {"root": "x", "classes": [1, 2]}, "the settings")


def test_without_labels_the_recipe_learns_from_predictions_and_other_methods_from_the_image_term() -> None:
    config = make_config(None, settings())
    own = config.settings_of("vl2v")
    assert (config.recipe, config.method, config.image_weight) == ("ood", "vl2v", 0.5)
    assert (own.kl_weight, own.pseudo_labels) == (0.1, 0.9)
    without = make_config(None, settings(vl2v={"pseudo_labels": 1}))
    assert (without.image_weight, without.settings_of("vl2v").kl_weight) == (1, 0.1)
    assert make_config(None, settings(vl2v={"pseudo_labels": "1"})).image_weight == 1
    paper = make_config(None, settings(recipe="paper"))
    assert (paper.method, paper.image_weight) == ("adip", 1)
    assert make_config(None, settings(method="feature")).image_weight == 1
    for each in (config, without, paper):
        assert make_config(None, each.model_dump(mode="json")) == each


def test_a_run_of_an_earlier_version_continues_without_pseudo_labels() -> None:
    values = make_config(None, settings()).model_dump(mode="json") | {"made_with": {"vl2v": "0.9"}, "image_weight": 1.0}
    del values["vl2v"]["pseudo_labels"]
    config = make_config(None, values)
    assert (config.image_weight, config.settings_of("vl2v").pseudo_labels) == (1, 1)
    assert make_config(None, config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"data": {"held_out": ["a"]}}, "vl2v evaluate"),
        ({"data": {"held_out_classes": ["cat"]}}, "--held-out-class)"),
        ({"data": {"labels_per_class": 3, "rest_unlabelled": True}}, "--labels-per-class), data.rest_unlabelled"),
        ({"data": {"unlabelled": "y"}}, "data.unlabelled (--unlabelled)"),
        ({"data": {"allow_missing_classes": True}}, "--allow-missing-classes"),
        ({"data": {"classes": [], "domain_folders": True}}, "--domain-folders"),
        ({"image_weight": 0.5, "vl2v": {"pseudo_labels": 1}}, "must not be set, found image_weight 0.5"),
        ({"vl2v": {"pseudo_labels": "many"}}, "1 fault in s"),
        ({"image_weight": 0.5, "method": "adip"}, "image_weight must be 1"),
        ({"image_weight": 0, "align": {"solver": "ridge"}, "method": "vl2v"}, "image_weight must be above 0"),
        ({"image_weight_end": 0.5, "method": "adip"}, "found image_weight 1 and image_weight_end 0.5"),
        *(({"method": name}, f"expected adip, vl2v, no-align, feature; found {name}")
          for name in ("erm", "linear-probe", "lp-ft", "kd", "rise", "miro", "text")),
    ],
)  # fmt: skip
def test_settings_that_need_labels_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(RunConfig, settings(**wrong), "s")
    assert message in caught.value.problem


def test_a_folder_without_labels_is_one_domain_at_any_depth(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.png", "b/d/e.png", "f/g.png"):
        image(tmp_path / "unsorted" / name)
    (tmp_path / "unsorted" / "classes.yaml").write_text("guinea pig: cavy\n")
    dataset = UnlabelledFolder(tmp_path / "unsorted", CLASSES).scan()
    assert (dataset.domains, dataset.names, dataset.phrases) == (("unsorted",), CLASSES, ("cat", "cavy"))
    assert len(dataset) == 4
    assert np.array_equal(dataset.labels, [-1] * 4)
    text = "\n".join(Contents.of(dataset).lines())
    assert "1 domain, 2 classes, 4 images without labels" in text
    assert "of each class" not in text


def test_folders_are_domains_with_domain_folders(tmp_path: Path) -> None:
    for name in ("left/1.png", "left/deep/2.png", "right/3.png", "right/4.png"):
        image(tmp_path / name)
    dataset = UnlabelledFolder(tmp_path, CLASSES, domain_folders=True).scan()
    assert dataset.domains == ("left", "right")
    assert np.array_equal(dataset.domain_of, [0, 0, 1, 1])
    image(tmp_path / "5.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FaultyDataError) as caught:
        UnlabelledFolder(tmp_path, CLASSES, domain_folders=True).scan()
    assert "outside every domain folder" in str(caught.value)
    assert "a domain folder without images" in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "camera/"])
def test_class_folders_are_not_silently_read_as_unlabelled(tmp_path: Path, prefix: str) -> None:
    for name in ("Cat/1.png", "Cat/2.png", "guinea_pig/3.png"):
        image(tmp_path / f"{prefix}{name}")
    with pytest.raises(FaultyDataError, match="named like classes") as caught:
        UnlabelledFolder(tmp_path, CLASSES).scan()
    assert "without --classes" in str(caught.value)
    dataset = UnlabelledFolder(tmp_path, CLASSES, as_found=True).scan()
    assert len(dataset) == 3
    assert any("named like classes" in warning for warning in dataset.warnings)


def test_a_single_folder_named_like_a_class_can_be_a_domain(tmp_path: Path) -> None:
    for name in ("cat/1.png", "other/2.png"):
        image(tmp_path / name)
    assert len(UnlabelledFolder(tmp_path, CLASSES).scan()) == 2


def test_an_unknown_class_is_reported_with_all_classes_and_the_most_similar_one() -> None:
    with pytest.raises(ConfigError, match=r"one of cat, wild dog, zebra(.|\n)*did you mean 'zebra'\?"):
        held_out_folders(["zebar"], ("cat", "wild_dog", "zebra"))
    many = tuple(f"class{i:03}" for i in range(100))
    with pytest.raises(ConfigError, match=r"class019, ... \(100 in all\)\n"):
        held_out_folders(["other"], many)


def test_split_folders_are_not_domains(tmp_path: Path) -> None:
    for name in ("train/1.png", "train/2.png", "val/3.png", "val/4.png"):
        image(tmp_path / name)
    assert UnlabelledFolder(tmp_path, CLASSES).scan().domains == (tmp_path.name,)
    with pytest.raises(FaultyDataError, match="splits of one dataset"):
        UnlabelledFolder(tmp_path, CLASSES, domain_folders=True).scan()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains no images") as caught:
        UnlabelledFolder(tmp_path, CLASSES)
    assert "with or without subfolders" in (caught.value.expected or "")
    with pytest.raises(DataError, match="is not a folder"):
        UnlabelledFolder(tmp_path / "absent", CLASSES)
