"""The clients of docs/how-to/sell-a-model.md, each run with the lines of the page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import textwrap
from pathlib import Path

import pytest
from vendor_serving import PlainTeacher, local_server, new_key

from other_environments import python_of

PAGE = Path(__file__).parents[2] / "docs/how-to/sell-a-model.md"
CLIENTS = ("openai", "LiteLLM", "LangChain", "LlamaIndex")
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
LITELLM_INFINITY = """
import litellm
answer = litellm.embedding("infinity/" + model, ["a photo of a dog"], api_base="http://127.0.0.1:8080", api_key=key)
print(answer.data[0]["embedding"][:3])
"""
MANY = {
    "LangChain": 'print(len(embeddings.embed_documents(["x"] * 1500)))',
    "LlamaIndex": 'print(len(embeddings.get_text_embedding_batch(["x"] * 300)))',
    "openai": 'print(len(client.embeddings.create(model=model, input=["x"] * 2048).data))',
}
pytestmark = pytest.mark.slow


def lines_of(client: str) -> str:
    """The three lines of a client on the page."""
    example = re.search(rf"^{client}[^\n]*:\n\n((?:    [^\n]*\n)+)", PAGE.read_text(), re.M)
    assert example is not None, f"no lines of {client}"
    return textwrap.dedent(example[1])


def run(program: str, url: str, key: str) -> list[str]:
    """Return what a program prints when its URL is replaced with that of this test's server."""
    program = f"key, model = {key!r}, 'plain'\n" + program.replace("http://127.0.0.1:8080", url)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and "proxy" not in k.lower()} | OFFLINE
    command = [str(python_of("clients")), "-c", program]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()


@pytest.mark.parametrize("client", [*CLIENTS, "LiteLLM, infinity"])
def test_three_lines_embed_a_text(client: str, tmp_path: Path) -> None:
    python_of("clients")
    lines = LITELLM_INFINITY if "infinity" in client else lines_of(client)
    assert len(lines.strip().splitlines()) == 3
    with local_server(PlainTeacher(batch_size=64), tmp_path) as server:
        shown = run(lines + MANY.get(client, ""), server.url, new_key(server.db))
    assert json.loads(shown[0]) == PlainTeacher.vector(b"a photo of a dog").tolist()[:3]
    if client in MANY:
        assert shown[1] in ("1500", "300", "2048")


def test_langchain_without_the_setting_gets_the_setting_in_the_error(tmp_path: Path) -> None:
    """LangChain would send token ids. Its tokenizer needs a download, so this test sends the ids itself."""
    program = """
import openai
try:
    openai.OpenAI(base_url="http://127.0.0.1:8080/v1", api_key=key).embeddings.create(model=model, input=[[1, 2], [3]])
except openai.UnprocessableEntityError as error:
    print(error.message)
"""
    with local_server(PlainTeacher(), tmp_path) as server:
        (shown,) = run(program, server.url, new_key(server.db))
    assert "OpenAIEmbeddings(check_embedding_ctx_length=False)" in shown
