"""Names on the Hub, from a server on this machine that answers as the Hub does."""

import hashlib
import http.server
import json
import threading
import urllib.parse

import numpy as np
import pytest

from bert_keras import load_pretrained, save_pretrained

hub = pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(http.server.BaseHTTPRequestHandler):
    """The questions of a download: which files there are (as releases up to 0.x ask, and as 1.x do), and
    what is in them.

    Source: https://huggingface.co/docs/hub/api
    """

    def log_message(self, *args):
        pass

    def answer(self, with_body):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        folder, revisions = self.server.folder, ("main", "v1", COMMIT)
        self.server.asked.append(path)
        files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
        for revision in revisions:
            if path == f"/api/models/ann/moods/tree/{revision}":
                entries = [self.entry(file) for file in files]
                return self.send(json.dumps(entries).encode(), "application/json", with_body)
            if path == f"/api/models/ann/moods/revision/{revision}":
                names = [str(p.relative_to(folder)) for p in files]
                siblings = [{"rfilename": name} for name in names]
                content = json.dumps({"id": "ann/moods", "sha": COMMIT, "siblings": siblings}).encode()
                return self.send(content, "application/json", with_body)
            start = f"/ann/moods/resolve/{revision}/"
            if path.startswith(start) and (folder / path.removeprefix(start)).is_file():
                content = (folder / path.removeprefix(start)).read_bytes()
                return self.send(content, "application/octet-stream", with_body)
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound" if "nobody" in path else "RevisionNotFound")
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def entry(self, file):
        content = file.read_bytes()
        path = str(file.relative_to(self.server.folder))
        return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def send(self, content, kind, with_body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def do_GET(self):
        self.answer(True)

    def do_HEAD(self):
        self.answer(False)


@pytest.fixture
def server(model, text_encoder, tmp_path, monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.folder = save_pretrained(model, tmp_path / "moods", text_encoder, verbose=0)
        server.asked = []
        (server.folder / "model.weights.bin").write_bytes(b"of no use here")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        api, snapshot_download = hub.HfApi(endpoint=url, token=False), hub.snapshot_download

        def download(name, **arguments):
            return snapshot_download(
                name, **arguments, endpoint=api.endpoint, cache_dir=tmp_path / "cache", token=False
            )

        monkeypatch.setattr(hub, "snapshot_download", download)
        yield server
        server.shutdown()
        thread.join()


def test_a_name_is_downloaded_and_opened(server, model):
    for revision in (None, "v1"):
        loaded = load_pretrained("ann/moods", revision=revision)
        for one, other in zip(model.get_weights(), loaded.model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        assert loaded.card.startswith("---") and loaded.directory.name == COMMIT
    assert "/ann/moods/resolve/" + COMMIT + "/text_encoder/text_encoder.json" in server.asked
    assert any("/revision/v1" in path for path in server.asked)
    assert not any("model.weights.bin" in path for path in server.asked)


def test_names_that_are_not_there(server):
    for name, revision in (("nobody/x", None), ("ann/moods", "v9")):
        with pytest.raises(OSError, match="the Hugging Face Hub gave none of this name"):
            load_pretrained(name, revision=revision)
