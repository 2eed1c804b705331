"""`vl2v vendor`: accounts, serving with TLS, and no key anywhere but on the screen, once."""

from __future__ import annotations

import json
import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner
from vendor_fixtures import server, spawner  # noqa: F401
from vendor_serving import Server, Spawner, bearer, new_key, picture

from ports import free_port
from vl2v.cli import app

RUN = CliRunner()


def vendor(db: str, *words: str) -> Any:
    return RUN.invoke(app, ["vendor", *words], env={"VL2V_VENDOR_DB": db, "COLUMNS": "80"})


def test_create_list_revoke(tmp_path: Path) -> None:
    db = f"sqlite:///{tmp_path}/accounts.sqlite"
    options = ("--price-per-1000-images", "0.60", "--quota", "5", "--requests-per-minute", "60", "--json")
    created = json.loads(vendor(db, "keys", "create", "a client", *options).stdout)
    assert created["price_per_1000_images"] == "0.6"
    assert created["quota"] == "5"
    key = created["key"]
    for words in (("keys", "list"), ("keys", "list", "--json")):
        listed = vendor(db, *words).stdout
        assert created["id"] in listed
        assert "client" in listed
        assert key not in listed
    assert vendor(db, "keys", "revoke", created["id"]).exit_code == 0
    assert json.loads(vendor(db, "keys", "list", "--json").stdout)[0]["revoked"] is not None
    shown = vendor(db, "keys", "create", "another").stdout.split()
    assert shown[2] == "key"
    assert shown[3].startswith("vl2v-")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("keys", "create", "a", "--price-per-1000-images", "cheap"), "is not an amount of money"),
        (("keys", "create", "a", "--price-per-1000-images=-1"), "not an amount of money"),
        (("keys", "create", "a", "--quota", "x"), "not an amount of money"),
        (("keys", "revoke", "0000"), "Unknown account"),
        (("serve", "--teacher", "nonsense"), "Unknown teacher"),
        (("serve", "--teacher", "conse:", "--tls-cert", "a.pem"), "TLS needs two files"),
        (("serve", "--teacher", "conse:", "--tls-cert", "a.pem", "--tls-key", "b.pem"), "a.pem is missing"),
        (("serve", "--teacher", "conse:", "--queue", "3"), "would not fit"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, words: tuple[str, ...], part: str) -> None:
    result = vendor(f"sqlite:///{tmp_path}/accounts.sqlite", *words)
    assert result.exit_code != 0
    assert part in result.stderr
    assert "expected" in result.stderr


def test_a_revoked_key_opens_nothing_at_once(server: Server) -> None:
    key = new_key(server.db)
    assert server.ask(key, {"model": server.model, "input": "a"}).status_code == 200
    assert vendor(server.db, "keys", "revoke", key[5:21]).exit_code == 0
    assert server.ask(key, {"model": server.model, "input": "a"}).status_code == 401


def test_the_server_supports_tls(spawner: Spawner, tmp_path: Path) -> None:
    cert, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    new = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    try:
        subprocess.run([*new, "-out", str(cert), "-keyout", str(private), *subject], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    port = free_port()
    server = spawner.start(port=port, scheme="https", tls_cert=str(cert), tls_key=str(private))
    trusted = ssl.create_default_context(cafile=str(cert))
    with httpx.Client(verify=trusted) as client:
        headers = bearer(new_key(server.db))
        body = {"model": server.model, "input": "a"}
        answer = client.post(f"https://localhost:{port}/v1/embeddings", json=body, headers=headers)
    assert answer.status_code == 200


def test_keys_are_not_written_to_any_file_or_log(spawner: Spawner) -> None:
    """Right keys, wrong keys, keys in wrong places; then every byte that the server wrote is searched for them."""
    server = spawner.start()
    key, revoked = new_key(server.db), new_key(server.db, quota="0")
    image = {"image": picture(1).hex()}
    bodies: list[Any] = ["x", {"model": key, "input": key}, {"model": server.model, "input": [image]}]
    bodies += [{"model": server.model, "input": "fine"}, {key: key, "model": server.model, "input": "a"}, key.encode()]
    bodies += [{"model": server.model, "input": [{key: "a"}]}, {"model": server.model, "input": "a", "modality": key}]
    texts = []
    for credential in (key, revoked, key[:-1] + "!"):
        texts += [server.ask(credential, body, once="a" if body == "x" else None).text for body in bodies]
    for path in (f"/{key}", f"/v1/models/{key}", f"/v1/usage?key={key}", f"/health?api_key={key}", "/metrics"):
        with httpx.Client(verify=False) as client:
            for headers in ({}, bearer(key), {"authorization": key}, {"x-api-key": key}):
                answer = client.get(server.url + path, headers=headers)
                texts += [answer.text, *(f"{k}: {v}" for k, v in answer.headers.items())]
    server.kill()
    log = server.log.read_text()
    assert "/v1/embeddings 200" in log
    assert key[5:21] in log  # the log contains the id of the account, which is not secret
    written = [*texts, log, *(file.read_bytes().decode("latin-1") for file in database_files(server))]
    assert len(written) > 40
    for secret in (key[22:], revoked[22:]):
        assert not [text[:200] for text in written if secret in text]


def database_files(server: Server) -> list[Path]:
    path = Path(server.db.removeprefix("sqlite:///"))
    files = sorted(path.parent.glob(path.name + "*"))
    assert files
    return files
