"""Rewrite `offline_vendor.json` after a change of the weights: python tests/demo/pin_offline_vendor.py."""

from __future__ import annotations

import json

from test_offline_vendor import PINNED, TEXTS, drawings

from vl2v.teacher.offline.teacher import OfflineVendor

if __name__ == "__main__":
    teacher = OfflineVendor()
    pinned = {
        "revision": teacher.describe().revision.split("+")[0],
        "images": teacher.embed_images(drawings())[:, :8].round(5).astype(float).round(5).tolist(),
        "texts": teacher.embed_texts(TEXTS)[:, :8].round(5).astype(float).round(5).tolist(),
    }
    PINNED.write_text(json.dumps(pinned, indent=1) + "\n")
