"""A prompt file that an untrusted student names is not read, even if the user states the teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_signatures import config_of, made_by
from watching import watched

from vl2v.commands.new_classes import own_templates
from vl2v.errors import TeacherError
from vl2v.runs.signatures import sign_teacher
from vl2v.student.model import Student


def test_a_prompt_file_is_read_only_if_the_user_stated_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a secret of {}\n")
    config = config_of("offline:", str(prompts))
    student = Student.load(made_by("offline:", tmp_path / "student", prompts=str(prompts)))
    with watched(tmp_path / "student") as events, pytest.raises(TeacherError, match="--template"):
        own_templates(student, config)
    assert events == []
    student.provenance["signature"] = sign_teacher(config)
    assert own_templates(student, config) == ("a secret of {}",)
