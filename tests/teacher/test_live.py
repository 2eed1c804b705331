"""Check each real vendor. Runs only with --live and a key in the environment, and costs a fraction of a cent."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path

import pytest

from vl2v.commands.check import check_teacher
from vl2v.locations import StoragePaths

VENDORS = {
    "jina:jina-clip-v2": "JINA_API_KEY",
    "cohere:embed-v4.0": "COHERE_API_KEY",
    "cohere:embed-v5.0-fast": "COHERE_API_KEY",
    "voyage:voyage-multimodal-3": "VOYAGE_API_KEY",
    "voyage:voyage-multimodal-3.5": "VOYAGE_API_KEY",
    "gemini:gemini-embedding-2": "GEMINI_API_KEY",
    "vertex:multimodalembedding@001": "GOOGLE_CLOUD_PROJECT",
    "bedrock:amazon.titan-embed-image-v1": "AWS_ACCESS_KEY_ID",
    "bedrock:amazon.nova-2-multimodal-embeddings-v1:0": "AWS_BEARER_TOKEN_BEDROCK",
    "azure": "AZURE_VISION_KEY",  # its address: AZURE_VISION_ENDPOINT
    "url": "VL2V_LIVE_URL",  # a server of ours, infinity or vLLM; its key: VL2V_API_KEY
}
UNPRICED = {"teacher": {"price_per_1000_images": "1", "price_per_1000_texts": "1"}}


@pytest.mark.parametrize("spec", VENDORS)
def test_a_real_vendor_passes_the_check(spec: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--live"):
        pytest.skip("--live asks real vendors, for money")
    if not os.environ.get(VENDORS[spec]):
        pytest.skip(f"{VENDORS[spec]} is not set")
    settings = UNPRICED if spec.startswith(("jina", "azure", "cohere:embed-v5")) else None
    if spec == "azure":
        spec = f"azure:{os.environ['AZURE_VISION_ENDPOINT']}"
    if spec == "url":
        spec = os.environ["VL2V_LIVE_URL"]
    storage = StoragePaths(tmp_path / "cache", tmp_path / "s.sqlite")
    result = check_teacher(spec, budget=Decimal("0.10"), storage=storage, settings=settings)
    assert result.deterministic
    assert result.one_space, f"accuracy {result.accuracy:.0%} on plain colours"
