"""Write the exports in this folder with third-party software. `versions.json` records its versions.

Each part runs in an environment of its own, since the packages exclude each other and those of vl2v:

    python -m venv /tmp/studio && /tmp/studio/bin/pip install label-studio
    /tmp/studio/bin/python tests/data/exports/write.py label-studio
    python -m venv /tmp/tools && /tmp/tools/bin/pip install datumaro datasets webdataset
    /tmp/tools/bin/python tests/data/exports/write.py datumaro datasets webdataset

`photos` has the images in folders of domains and classes. The server of Label Studio is started on a free port.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PHOTOS = sorted((HERE / "photos").rglob("*.png"))
CLASSES = sorted({photo.parts[-2] for photo in PHOTOS})
USER, PASSWORD = "annotator@example.org", "not-a-secret"
CHOICES = "".join(f'<Choice value="{name}"/>' for name in CLASSES)
FORMATS = {"JSON": ".json", "JSON_MIN": "-min.json", "CSV": ".csv", "TSV": ".tsv"}


def label_config(choice: str) -> str:
    """The labelling page of a project: one choice for an image, or several."""
    choices = f'<Choices name="animal" toName="image" choice="{choice}">{CHOICES}</Choices>'
    return f'<View><Image name="image" value="$image"/>{choices}</View>'


class Studio:
    """A project on a running server of Label Studio, as the web page uses it."""

    def __init__(self, url: str) -> None:
        self._url, self._session = url, importlib.import_module("requests").Session()
        self._session.get(f"{url}/user/login/").raise_for_status()
        form = {"email": USER, "password": PASSWORD, "csrfmiddlewaretoken": self._session.cookies["csrftoken"]}
        headers = {"Referer": url}
        self._session.post(f"{url}/user/login/", data=form, headers=headers).raise_for_status()
        self._id = self("POST", "/api/projects", json={"title": "animals", "label_config": label_config("single")})[
            "id"
        ]

    def __call__(self, method: str, path: str, **options: Any) -> Any:
        headers = {"X-CSRFToken": self._session.cookies["csrftoken"], "Referer": self._url}
        answer = self._session.request(method, self._url + path, headers=headers, **options)
        if not answer.ok:
            raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        if "export?" in path:
            return answer.content
        return answer.json() if answer.content else None

    def upload(self) -> list[dict[str, Any]]:
        """Upload the photos, and return a task with the domain for each of them."""
        tasks, address = [], f"/api/projects/{self._id}/import"
        for photo in PHOTOS:
            name = f"{photo.parts[-3]} {photo.parts[-2]} {photo.name}"
            made = self(
                "POST",
                f"{address}?commit_to_project=false",
                files={"file": (name, photo.read_bytes(), "image/png")},
            )
            number = made["file_upload_ids"][0]
            file = self("GET", f"/api/import/file-upload/{number}")["file"]
            tasks.append({"data": {"image": f"/data/{file}", "camera": photo.parts[-3]}})
        self("POST", address, json=tasks)
        found = self("GET", f"/api/tasks?project={self._id}&page_size=1000")
        return sorted(found["tasks"] if isinstance(found, dict) else found, key=lambda task: int(task["id"]))

    def annotate(self, task: dict[str, Any], *choices: str, skipped: bool = False) -> int:
        """Add an annotation, and return its number."""
        result = {"from_name": "animal", "to_name": "image", "type": "choices", "value": {"choices": list(choices)}}
        body = {"result": [result], "was_cancelled": skipped, "lead_time": 1.5}
        return int(self("POST", f"/api/tasks/{task['id']}/annotations/", json=body)["id"])

    def export(self, name: str, *, everything: bool = False) -> None:
        """Write the export in each format. Tasks without annotations are in it only with `everything`."""
        for kind, ending in FORMATS.items():
            flag = "true" if everything else "false"
            address = f"/api/projects/{self._id}/export?exportType={kind}&download_all_tasks={flag}"
            (HERE / "label-studio" / f"{name}{ending}").write_bytes(self("GET", address))

    def disturb(self, tasks: list[dict[str, Any]], first: list[int]) -> None:
        """Make what annotators make; `DISTURBED` of the test states the result."""
        other = {CLASSES[0]: CLASSES[1], CLASSES[1]: CLASSES[0]}
        labels = [photo.parts[-2] for photo in PHOTOS]
        self.annotate(tasks[1], labels[1])  # a second annotator agrees
        self.annotate(tasks[2], other[labels[2]])  # a second annotator disagrees
        self("DELETE", f"/api/annotations/{first[3]}/")  # not labelled
        self("DELETE", f"/api/annotations/{first[4]}/")
        self.annotate(tasks[4], labels[4], skipped=True)  # skipped
        self.annotate(tasks[5], other[labels[5]], skipped=True)  # labelled by one, skipped by another
        self("DELETE", f"/api/annotations/{first[6]}/")  # only a prediction
        choice = {"choices": [labels[6]]}
        result = {"from_name": "animal", "to_name": "image", "type": "choices", "value": choice}
        body = {"task": tasks[6]["id"], "result": [result], "score": 0.9, "model_version": "1"}
        self("POST", "/api/predictions/", json=body)
        self("PATCH", f"/api/projects/{self._id}", json={"label_config": label_config("multiple")})
        results = [result | {"value": {"choices": CLASSES}}]
        self("PATCH", f"/api/annotations/{first[7]}/", json={"result": results})  # two classes


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Run Label Studio with a new database until the block ends, and give its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = os.environ | {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_USERNAME": USER,
        "LABEL_STUDIO_PASSWORD": PASSWORD,
        "COLLECT_ANALYTICS": "false",
    }
    words = ["start", "--no-browser", "--port", str(port), "--internal-host", "127.0.0.1"]
    command = [str(Path(sys.executable).with_name("label-studio")), *words]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):  # the database is made first
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def label_studio(out: Path) -> None:
    with tempfile.TemporaryDirectory() as data, served(Path(data)) as url:
        studio = Studio(url)
        tasks = studio.upload()
        first = [studio.annotate(task, photo.parts[-2]) for task, photo in zip(tasks, PHOTOS, strict=True)]
        studio.export("clean")
        studio.disturb(tasks, first)
        studio.export("disturbed", everything=True)
        (uploads,) = (Path(data) / "media" / "upload").iterdir()
        shutil.copytree(uploads, out / "upload" / uploads.name)


def datumaro(out: Path) -> None:
    dm = importlib.import_module("datumaro")
    labels = dm.LabelCategories()
    for name in CLASSES:
        labels.add(name, attributes={"camera"})
    for name, subset in (("cvat", False), ("cvat-subsets", True), ("imagenet", False)):
        items = [
            dm.DatasetItem(
                id=f"{photo.parts[-3]} {photo.parts[-2]} {photo.stem}",
                subset=photo.parts[-3] if subset else "default",
                media=dm.Image.from_file(path=str(photo)),
                annotations=[dm.Label(CLASSES.index(photo.parts[-2]), attributes={"camera": photo.parts[-3]})],
            )
            for photo in PHOTOS
        ]
        made = dm.Dataset.from_iterable(items, categories={dm.AnnotationType.label: labels})
        made.export(str(out / name), name.partition("-")[0], save_media=True)


def datasets(out: Path) -> None:
    package = importlib.import_module("datasets")
    features = package.Features(
        {
            "image": package.Image(),
            "animal": package.ClassLabel(names=CLASSES),
            "camera": package.Value("string"),
        }
    )
    rows = {
        "image": [{"bytes": photo.read_bytes(), "path": photo.name} for photo in PHOTOS],
        "animal": [photo.parts[-2] for photo in PHOTOS],
        "camera": [photo.parts[-3] for photo in PHOTOS],
    }
    made = package.Dataset.from_dict(rows, features=features)
    made.save_to_disk(str(out / "saved"))
    made.train_test_split(test_size=0.25, seed=0).save_to_disk(str(out / "split"))
    made.to_parquet(str(out / "made.parquet"))


def webdataset(out: Path) -> None:
    package = importlib.import_module("webdataset")
    with package.ShardWriter(str(out / "part-%06d.tar"), maxcount=8, verbose=0) as shards:
        for i, photo in enumerate(PHOTOS):
            about = {"camera": photo.parts[-3], "animal": photo.parts[-2]}
            sample = {"png": photo.read_bytes(), "cls": CLASSES.index(photo.parts[-2]), "json": about}
            shards.write({"__key__": f"{i:06d}"} | sample)


WRITERS = {"label-studio": label_studio, "datumaro": datumaro, "datasets": datasets, "webdataset": webdataset}


def main() -> None:
    file = HERE / "versions.json"
    for name in sys.argv[1:] or WRITERS:
        shutil.rmtree(HERE / name, ignore_errors=True)
        (HERE / name).mkdir()
        WRITERS[name](HERE / name)
        versions = json.loads(file.read_text()) if file.is_file() else {}
        versions[name] = importlib.metadata.version(name)
        file.write_text(json.dumps(versions, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
