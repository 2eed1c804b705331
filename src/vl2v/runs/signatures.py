"""Whether this user made a run on this machine, so that files and addresses in it may be opened.

A run folder names the teacher of its student and the store of its embeddings. In the folder of a stranger, these may be
any file or address, and a key from the environment would be sent to that address. `vl2v distill` therefore signs what
it writes with a secret of the user. The secret is in the user's data folder and in no run.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from vl2v.config import RunConfig
from vl2v.errors import TeacherError
from vl2v.pretrained.open_clip import ClipSpec
from vl2v.teacher.prompts import is_file
from vl2v.teacher.registry import ADDRESSED, VENDORS

MARK = "signature"  # key in the provenance and in places.json
SECRET_BYTES = 32
FIXED = {"offline", "conse"} | VENDORS.keys() - set(ADDRESSED)
"""Teachers whose names contain neither a file nor an address."""
TEMPLATES = "pass its lines: --template 'a photo of a {}'"
PLAIN = re.compile(r"[A-Za-z0-9_.-]+")
MODEL = re.compile(r"[A-Za-z0-9_.:@-]+")  # of a vendor, such as multimodalembedding@001


def sign(*parts: str | Sequence[str]) -> str | None:
    """Return the signature of texts in hexadecimal; None if the user's data folder cannot be used."""
    secret = _secret()
    text = json.dumps([part if isinstance(part, str) else list(part) for part in parts])
    return None if secret is None else hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def is_signed(signature: object, *parts: str | Sequence[str]) -> bool:
    """Whether this user signed these texts on this machine."""
    expected = sign(*parts) if isinstance(signature, str) else None
    return expected is not None and hmac.compare_digest(expected.encode(), str(signature).encode())


def sign_teacher(config: RunConfig) -> str | None:
    """Return the signature of the teacher and the prompts of a run."""
    return sign("teacher", config.teacher.spec, config.teacher.prompts)


def check_teacher(config: RunConfig, signature: object) -> None:
    """Check that the teacher of a student may be opened: this user made the student, or no file or address is named.

    Raises:
        TeacherError: if it may not; the message names the option that opens it anyway.
    """
    spec, prompts = config.teacher.spec, config.teacher.prompts
    harmless = not is_file(prompts)
    if (harmless and _is_fixed(spec)) or is_signed(signature, "teacher", spec, prompts):
        return
    raise TeacherError(
        "The student or its run names a file, an address or options for its teacher, and was not made here by this "
        "version of vl2v.",
        expected="--teacher (from Python, teacher=), since a folder from others could send your key to any address",
        found=spec[:200] if harmless else f"{spec[:200]}, with prompts from {str(prompts)[:200]}",
        next_step=f"if you trust it, repeat the command with --teacher '{spec[:200]}'",
    )


def check_prompts(config: RunConfig, signature: object, step: str = TEMPLATES) -> None:
    """Refuse to read the prompts of a student that was made elsewhere from a file, even if the teacher is the user's.

    The lines of any file with braces would be sent to the teacher.

    Args:
        config: settings of the student's run.
        signature: signature of teacher and prompts.
        step: how the user states the prompts, for the message.

    Raises:
        TeacherError: with the option that states the prompts.
    """
    spec, prompts = config.teacher.spec, config.teacher.prompts
    if is_file(prompts) and not is_signed(signature, "teacher", spec, prompts):
        raise TeacherError(
            "The student or its run names a file as its prompts, and was not made here by this version of vl2v.",
            expected="the prompts themselves, e.g. 'a photo of a {}'",
            found=str(prompts)[:200],
            next_step=f"if you trust it, {step}; else copy the folder again from its source",
        )


def _is_fixed(spec: str) -> bool:
    kind, _, name = spec.partition(":")
    if kind == "open_clip":
        clip = ClipSpec.parse(name)
        return clip.file is None and all(PLAIN.fullmatch(part) for part in (clip.model, clip.pretrained))
    return kind in FIXED and (not name or MODEL.fullmatch(name) is not None)


def _secret() -> bytes | None:
    path = Path(platformdirs.user_data_dir("vl2v")) / "secret"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f"secret.{os.getpid()}.new")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
                handle.write(secrets.token_bytes(SECRET_BYTES))
            try:
                os.link(fresh, path)  # if several processes write it, the first one succeeds
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        secret = path.read_bytes()
    except OSError:
        return None
    return secret if len(secret) == SECRET_BYTES else None
