"""Hundreds of wrong values of options give a message, the right exit code and no traceback."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import update

from command_line import Done, run_cli
from vl2v.errors import ConfigError
from vl2v.teacher.registry import check_device
from vl2v.vendor_server.database import accounts, open_database

NUMBERS = ["-1", "nan", "inf", "-inf", "1e400", "1e9999999", "9" * 60, "abc", "0x10", "1_000", "1,5", " ", "\0", "sNaN"]
DATA = ["DATA", "--teacher", "offline:", "--student", "offline:"]
GRID = ["--data", *DATA, "--out", "OUT", "--plan"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small dataset and a vendor database with one account."""
    folder = tmp_path_factory.mktemp("world")
    for domain in ("ink", "rose"):
        for kind in ("cat", "dog"):
            (folder / "data" / domain / kind).mkdir(parents=True)
            for i in range(5):
                image = Image.new("RGB", (8, 8), (i, len(kind), ord(kind[0])))
                image.save(folder / "data" / domain / kind / f"{i}.png")
    words = [str(folder / "data") if word == "DATA" else word for word in DATA]
    run_cli("quote", *words, "--prompts", "{", "--cache", folder / "c", "--store", folder / "s")  # imports, for seconds
    with pytest.raises(ConfigError):
        check_device("cuda:99")
    return folder


@pytest.fixture(scope="module")
def account(workspace: Path) -> str:
    done = run_cli("vendor", "keys", "create", "acme", "--json", "--db", database(workspace))
    assert done.returncode == 0
    return str(json.loads(done.stdout)["id"])


@pytest.fixture(scope="module")
def busy_port() -> Iterator[int]:
    """A used port, so that a server whose options are accepted ends too."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield one.getsockname()[1]


def database(workspace: Path) -> str:
    return f"sqlite:///{workspace / 'vendor.sqlite'}"


def text_of(done: Done) -> str:
    return " ".join((done.stdout + done.stderr).replace("│", " ").split())


def check_refused(done: Done, *codes: int) -> str:
    text = text_of(done)
    assert done.returncode in (codes or (2,)), text
    assert "Unexpected" not in text
    assert any(words in text for words in ("expected:", "Invalid value", "Input should", "is empty", "next:")), text
    assert len(text) < 2500
    return text


@pytest.mark.parametrize("value", NUMBERS)
def test_wrong_amounts_of_accounts_are_refused(workspace: Path, account: str, value: str) -> None:
    for flag in ("--price-per-1000-images", "--price-per-1000-texts", "--quota"):
        for words in (["create", "x"], ["edit", account]):
            text = check_refused(run_cli("vendor", "keys", *words, flag, value, "--db", database(workspace)))
            assert "amount of money" in text
            assert f"next: correct {flag}" in text


@pytest.mark.parametrize(
    "words",
    [
        ["--requests-per-minute", "-1"],
        ["--requests-per-minute", "9" * 20],
        ["--currency", "usd"],
        ["--currency", "\x1b[31m"],
        ["--expires", "0d"],
        ["--expires", "2020-01-01"],
        ["--expires", "9999-12-31T23:59-12:00"],
        ["--expires", "9999-06-01"],
        ["--expires", "10000-01-01"],
        ["--expires", "９0d"],
    ],
)
def test_wrong_terms_of_accounts_are_refused(workspace: Path, words: list[str]) -> None:
    assert "next:" in check_refused(run_cli("vendor", "keys", "create", "x", *words, "--db", database(workspace)))


@pytest.mark.parametrize("name", [" ", "a\nb", "\0", "\x1b[31mred", "x" * 201])
def test_wrong_names_of_accounts_are_refused(workspace: Path, account: str, name: str) -> None:
    for words in (["create", name], ["edit", account, "--name", name]):
        text = check_refused(run_cli("vendor", "keys", *words, "--db", database(workspace)))
        assert "choose another name" in text
        assert "\x1b" not in text


@pytest.mark.parametrize("hours", ["nan", "inf", "-1", "8761", "abc"])
def test_wrong_grace_periods_are_refused(workspace: Path, account: str, hours: str) -> None:
    check_refused(
        run_cli("vendor", "keys", "edit", account, "--rotate", "--grace-hours", hours, "--db", database(workspace))
    )


def test_an_expiry_that_an_earlier_version_accepted_is_listed(workspace: Path, account: str) -> None:
    engine = open_database(database(workspace))
    late = datetime(9999, 12, 31, 23, 59, tzinfo=UTC).timestamp() + 43_200
    with engine.begin() as database_connection:
        database_connection.execute(update(accounts).where(accounts.c.id == account).values(expires=late))
    done = run_cli("vendor", "keys", "list", "--db", database(workspace))
    assert done.returncode == 0
    assert "9999" in done.stdout
    with engine.begin() as database_connection:
        database_connection.execute(update(accounts).values(expires=None))


@pytest.mark.parametrize(
    "address",
    ["sqlite://", "sqlite:///", "sqlite:////no/such/folder.db", "mysql://x/y", "notaurl", "sqlite:///a?mode=ro",
     "postgresql://[bad/x", "sqlite:///x\0y", "postgresql://host:port/x"],
)  # fmt: skip
def test_wrong_databases_of_a_vendor_are_refused(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--db" in check_refused(run_cli("vendor", "keys", "list", "--db", address))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("--host", ["999.1.1.1", "no such host", "\0", "x" * 300, "[::"]),
        ("--port", ["-1", "0", "65536", "abc"]),
        ("--threads", ["0", "-1", "100000"]),
        ("--max-inputs", ["0", "-1"]),
        ("--max-texts", ["0"]),
        ("--max-body-mb", ["0", "99999999999"]),
        ("--max-image-mb", ["0", "99999999999"]),
        ("--max-megapixels", ["0", "99999999"]),
        ("--queue", ["0", "1"]),
        ("--wait-ms", ["-1", "nan", "inf", "1e300"]),
        ("--idempotency-hours", ["-1", "nan", "inf", "1e300"]),
        ("--tls-cert", ["/none"]),
        ("--device", ["nonsense", "cuda:99"]),
        ("--allow-image-host", ["http://x", "a b", "*", "x:99999", "\0", ":80"]),
        ("--teacher", ["nonsense", "file:", "file:/none.npz", "conse:x", "offline:x"]),
        ("--db", ["notaurl"]),
    ],
)
def test_wrong_options_of_the_vendor_are_refused(
    workspace: Path, busy_port: int, flag: str, values: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if flag not in ("--host", "--port"):
        monkeypatch.setattr("vl2v.vendor_server.running.check_port", lambda *_: None)
    monkeypatch.setattr("vl2v.vendor_server.running.listen", lambda *_: pytest.fail("it would serve"))
    base = ["vendor", "serve", "--teacher", "offline:", "--db", database(workspace), "--port", str(busy_port)]
    for value in values:
        check_refused(run_cli(*base, flag, value), 2, 4)


def test_a_used_port_is_reported_before_the_model_is_loaded(workspace: Path, busy_port: int) -> None:
    done = run_cli(
        "vendor", "serve", "--teacher", "file:/none.npz", "--db", database(workspace), "--port", str(busy_port)
    )
    assert "choose another port: --port" in check_refused(done)


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("--port", ["-1", "0", "65536"]),
        ("--threads", ["0", "100000"]),
        ("--budget", ["-1", "nan", "1e400"]),
        ("--max-megapixels", ["0", "9" * 20]),
        ("--host", ["\0", "no such host"]),
    ],
)
def test_wrong_options_of_the_student_server_are_refused(workspace: Path, flag: str, values: list[str]) -> None:
    for value in values:
        check_refused(run_cli("serve", workspace / "data", flag, value))


@pytest.mark.parametrize(
    "setting",
    [
        "nosuch=1", "distill.steps=-1", "distill.steps=nan", "distill.steps=1e99", "distill.steps=", "=1", "a",
        "distill=1", "distill..steps=1", "distill.learning_rate=nan", "distill.learning_rate=inf", "seed=-1",
        "seed=" + "9" * 30, "batch_per_domain=0", "student.size=99999999", "budget=nan", "budget=-1", "budget=1e400",
        "workers=-1", "workers=100000", "threads=100000", "device=nonsense", "tracking=[x]", "data=[", "\0=1",
        "a=&a [*a]", "distill.steps={a: 1}", "method=nosuch", "__class__=1", "x" * 3000 + "=1",
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(workspace: Path, setting: str) -> None:
    words = [str(workspace / "data") if word == "DATA" else word for word in DATA]
    check_refused(run_cli("quote", *words, "--set", setting, "--cache", workspace / "c", "--store", workspace / "s"))


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        (
            "--seeds",
            ["-1", "0", "abc", "1,1", "1,-2", "0.5", ",", "nan", "1001", "9" * 11, "9" * 5000, "99999999999,1"],
        ),
        ("--targets", ["nosuch", ",", "rose,rose", "\0"]),
        ("--methods", ["nosuch", ",", "adip,adip"]),
        ("--budget", ["-1", "nan", "inf", "1e400", "abc"]),
        ("--vary", ["x", "=", "seed=", "distill.steps=[", "distill.steps=a,b", "nosuch=1,2"]),
        ("--jobs", ["0", "-1", "nan"]),
        ("--set", ["nosuch=1", "budget=1e400", "a"]),
        ("--config", ["/none", "/dev/zero"]),
        ("--variants", ["/none", "/dev/zero"]),
    ],
)
def test_wrong_options_of_a_benchmark_are_refused(workspace: Path, flag: str, values: list[str]) -> None:
    replaced = {"DATA": str(workspace / "data"), "OUT": str(workspace / "grid")}
    words = [replaced.get(word, word) for word in GRID]
    for value in values:
        done = run_cli("benchmark", "run", *words, "--cache", workspace / "c", "--store", workspace / "s", flag, value)
        check_refused(done, 2, 3, 13)


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("--held-out", ["nosuch", "\0"]),
        ("--prompts", ["/none", "no placeholder", "{", "{}{}", "{x}"]),
        ("--prompts", ["{0}", "{!r}", "{:>9999999999}"]),
        ("--size", ["0", "-1", "99999999", "nan"]),
        ("--recipe", ["nosuch"]),
        ("--config", ["/none", "/dev/zero"]),
    ],
)
def test_wrong_options_of_quote_are_refused(workspace: Path, flag: str, values: list[str]) -> None:
    words = [str(workspace / "data") if word == "DATA" else word for word in DATA]
    for value in values:
        check_refused(
            run_cli("quote", *words, "--cache", workspace / "c", "--store", workspace / "s", flag, value), 2, 13
        )


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("--budget", [number for number in NUMBERS if number != "1_000"]),
        ("--time", ["0", "-1m", "nan", "1e99h", "abc", "0s"]),
        ("--threads", ["0", "-1", "abc"]),
        ("--set", ["nosuch=1", "workers=100000", "budget=1e400"]),
    ],
)
def test_wrong_options_of_distill_are_refused(workspace: Path, flag: str, values: list[str]) -> None:
    words = [str(workspace / "data") if word == "DATA" else word for word in DATA]
    for value in values:
        check_refused(run_cli("distill", *words, "--out", workspace / "run", flag, value))
        assert not (workspace / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["data", "get", "nosuch"], ["data", "get", "../x"], ["data", "get", "\0"],
        ["data", "check", "x" * 5000, "DATA"],
        ["data", "get", "pacs", "--from", "/none"], ["data", "check", "pacs", "/none"],
        ["classes", "list", "/none"], ["classes", "add", "/none", "x"], ["classes", "remove", "/none", "x"],
        ["trust", "/none"], ["trust", "/dev/null"], ["report", "/none"], ["export", "/dev/null"],
        ["evaluate", "/none", "DATA"], ["predict", "/dev/null", "DATA"], ["serve", "/none"], ["push", "/none", "me/x"],
        ["benchmark", "table", "/none"], ["benchmark", "curve", "/none", "--output", "x.svg"],
        ["teacher", "check", "offline:", "--data", "/none"], ["teacher", "check", "nosuch"],
    ],
)  # fmt: skip
def test_wrong_paths_of_cache_and_store_are_refused(
    workspace: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_cli(*(str(workspace / "data") if word == "DATA" else word for word in words))
    check_refused(done, 2, 3, 4, 6, 8, 12, 13)
