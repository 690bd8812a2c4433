"""Published files, downloaded once into a cache: resumed after interruptions, verified, never half there."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from tqdm import tqdm

from bert_keras.version import __version__

_CHUNK_BYTES = 1 << 16
_BACK_OFF = 1.0  # seconds before the first retry; doubled before each further one
_ERRORS_OF_READING = (OSError, http.client.HTTPException)


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """One file that somebody published, and what is in it.

    Args:
        name: a plain file name, the last part of its address and its name on disk.
        git_blob_sha1: how git names the content: the SHA-1, in hexadecimal, of `blob`, a space, the size in
            bytes, a NUL byte and the content.

    Raises:
        ValueError: `name` is a path, or `git_blob_sha1` is no SHA-1.

    Example:
        >>> PublishedFile("vocab_40000.bpe", "0023a687b3d4d0b795a5e97cc914bdabb5a253df").name
        'vocab_40000.bpe'

    Source: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    """

    name: str
    git_blob_sha1: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name):
            raise ValueError(f"name: expected a plain file name, got {self.name!r}.")
        if not re.fullmatch(r"[0-9a-f]{40}", self.git_blob_sha1):
            raise ValueError(f"git_blob_sha1: expected 40 hexadecimal digits, got {self.git_blob_sha1!r}.")


OPENAI_URL = "https://raw.githubusercontent.com/openai/finetune-transformer-lm/a69b5c43b0452462890bca8ff92fb75dee9290cf/model"
OPENAI_FILES = (
    PublishedFile("params_shapes.json", "29fac299ae848d7e447be84a33345edcf1b5353c"),
    PublishedFile("encoder_bpe_40000.json", "9dc3f0af5a80956e57dc8d9401e16dfadcade7c2"),
    PublishedFile("vocab_40000.bpe", "0023a687b3d4d0b795a5e97cc914bdabb5a253df"),
    PublishedFile("params_0.npy", "84d83ac1f1cc878f56f33b167482c184491875d2"),
    PublishedFile("params_1.npy", "0f19f4d4cda3d8f908e3faffd2cb2a8b9a4039da"),
    PublishedFile("params_2.npy", "25bc19c72fdff69505a828ec6d73b32063532148"),
    PublishedFile("params_3.npy", "5b2e6958d42a930966c9d602a012eb846ca67c83"),
    PublishedFile("params_4.npy", "87ad158987e307e6aa64952610f466d750b73bc7"),
    PublishedFile("params_5.npy", "74f3853316bba327229605dbedfe921996f11448"),
    PublishedFile("params_6.npy", "5ef44e40bc076d0c9686d1273d54cbc16c3f0980"),
    PublishedFile("params_7.npy", "d8d5c8d3bee9b20a677605ac1fe6c7af4df57c94"),
    PublishedFile("params_8.npy", "f980f4b393716f396ae5ae6401708dcf4f270dc9"),
    PublishedFile("params_9.npy", "d389eb2074dd74754444b8062aba78b49f6a9053"),
)


class _TransientError(Exception):
    """Something went wrong on the way that may go well the next time."""


def cache_directory() -> Path:
    """Return where downloads are kept: `$BERT_KERAS_CACHE`, else `$XDG_CACHE_HOME/bert_keras`, else
    `~/.cache/bert_keras`. It need not exist.

    Example:
        >>> os.environ["BERT_KERAS_CACHE"] = "/data/bert_keras"
        >>> cache_directory()
        PosixPath('/data/bert_keras')

    Source: https://specifications.freedesktop.org/basedir-spec/latest/ (which has relative paths ignored)
    """
    if home := os.environ.get("BERT_KERAS_CACHE"):
        return Path(home).expanduser().absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "bert_keras"


def openai_directory(path: str | Path | None = None) -> Path:
    """Return a directory with the GPT that OpenAI published. What of its 470 MB is missing is downloaded.

    Args:
        path: a directory of one's own, returned as it is. By default `openai-gpt` in `cache_directory()`,
            whose files are verified at every call, and fetched where they are missing or damaged.

    Raises:
        FileNotFoundError: `path` is no directory.
        ConnectionError: the files cannot be had; the message says how to get them by hand.
        ValueError: what was received is not what was published.
        OSError: they cannot be written.

    Example:

    ```python
    encoder = load_openai(openai_directory())
    ```

    Source: https://github.com/openai/finetune-transformer-lm
    """
    if path is not None:
        if not Path(path).is_dir():
            raise FileNotFoundError(
                f"path: there is no directory {str(path)!r}. Expected one with params_shapes.json and "
                "params_0.npy to params_9.npy, or None, which downloads them."
            )
        return Path(path)
    directory = cache_directory() / "openai-gpt"
    try:
        download(OPENAI_FILES, directory, base_url=OPENAI_URL)
    except ConnectionError as error:
        missing = [file.name for file in OPENAI_FILES if not (directory / file.name).is_file()]
        raise ConnectionError(
            f"{error} To do it by hand, download {', '.join(missing)} from {OPENAI_URL}/ into the folder "
            f"{str(directory)!r}."
        ) from error
    return directory


def download(
    files: Sequence[PublishedFile],
    directory: str | Path,
    *,
    base_url: str,
    timeout: float = 30.0,
    retries: int = 5,
    progress: bool = True,
) -> None:
    """Fetch those of the files that are not there yet, or are damaged. At the end all are there and verified.

    What was received of a file is kept beside it, its name followed by `.part`, and continued the next time.
    Several processes may call this at once: one works, the others wait for it.

    Args:
        files: what to fetch.
        directory: where to; made if missing.
        base_url: the address, `http` or `https`, below which the files are.
        timeout: seconds without an answer after which an attempt has failed.
        retries: how many more attempts there are for one file when the connection fails or is cut, or the
            server reports a fault of its own (5xx). They wait 1, 2, 4, ... seconds.
        progress: whether to show on the error stream, if that is a terminal, how far it is.

    Raises:
        ConnectionError: the server is out of reach, or refuses (4xx, without a retry).
        ValueError: a file's content is not what it should be, twice; or an argument is wrong.
        OSError: a file cannot be written.

    Example:

    ```python
    download(OPENAI_FILES, "openai-gpt", base_url=OPENAI_URL)
    ```
    """
    if urllib.parse.urlsplit(base_url).scheme not in ("http", "https"):
        raise ValueError(f"base_url: expected an address with http or https, got {base_url!r}.")
    if not timeout > 0 or retries < 0:
        raise ValueError(
            f"timeout and retries: expected more than 0 and at least 0, got {timeout} and {retries}."
        )
    directory = Path(directory)
    if all(_is_whole(directory / file.name, file) for file in files):
        return  # Nothing is written then: the directory may be read-only.
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory):
        for file in files:
            if not _is_whole(directory / file.name, file):
                url = f"{base_url.rstrip('/')}/{urllib.parse.quote(file.name)}"
                _fetch(file, directory, url, timeout, retries, progress)


def git_blob_sha1(path: str | Path) -> str:
    """Return how git names a file's content (see `PublishedFile`). The file is read in pieces.

    Example:
        >>> Path("a.txt").write_bytes(b"what is up, doc?")
        16
        >>> git_blob_sha1("a.txt")
        'bd9dbf5aae1a3862dd1526723246b20206e5fc37'
    """
    with open(path, "rb") as file:
        digest = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _is_whole(path: Path, file: PublishedFile) -> bool:
    return path.is_file() and git_blob_sha1(path) == file.git_blob_sha1


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Waits until no other process downloads into the directory. One that dies leaves no lock behind."""
    with open(directory / ".lock", "ab") as file:
        if sys.platform == "win32":
            import msvcrt

            while True:
                try:
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)  # waits for ten seconds at most
                    break
                except OSError as error:
                    if error.errno != errno.EDEADLK:
                        raise
        else:
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:  # Some network file systems have no locks. Content is verified anyway.
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
        yield


def _fetch(
    file: PublishedFile, directory: Path, url: str, timeout: float, retries: int, progress: bool
) -> None:
    """Fetch one file. The part that was there may be of something else: hence one more try from the start."""
    part = directory / f"{file.name}.part"
    found = ""
    for _ in range(2):
        _receive_with_retries(url, part, timeout, retries, progress)
        found = git_blob_sha1(part)
        if found == file.git_blob_sha1:
            with open(part, "rb+") as written:
                os.fsync(written.fileno())
            os.replace(part, directory / file.name)
            return
        part.unlink()
    raise ValueError(
        f"{file.name}: expected content with the git blob id {file.git_blob_sha1}, got {found} from {url}, "
        "twice. It was changed there or on the way, and was deleted here. Try another network, or fetch it "
        "by hand."
    )


def _receive_with_retries(url: str, part: Path, timeout: float, retries: int, progress: bool) -> None:
    for attempt in range(retries + 1):
        try:
            return _receive(url, part, timeout, progress)
        except _TransientError as error:
            if attempt == retries:
                raise ConnectionError(
                    f"{url} could not be downloaded: {error}. Tried {attempt + 1} times; what arrived is "
                    "kept, and the next call goes on from there."
                ) from error
        time.sleep(_BACK_OFF * 2**attempt)


def _receive(url: str, part: Path, timeout: float, progress: bool) -> None:
    """Append to the part what is missing of it, or start over if the server cannot do that.

    Raises:
        _TransientError: if it did not arrive whole.
        ConnectionError: if the server refuses.
    """
    offset = part.stat().st_size if part.exists() else 0
    response = _request(url, offset, timeout)
    if response is None:
        return
    with response:
        if response.status != 206 or not _starts_at(response, offset):
            if response.status == 206 and offset:  # Another piece than the one that was asked for.
                part.unlink()
                raise _TransientError("the server sent another part of the file")
            offset = 0
        expected = response.length
        bar = tqdm(
            desc=part.name.removesuffix(".part"),
            initial=offset,
            total=None if expected is None else offset + expected,
            unit="B",
            unit_scale=True,
            disable=None if progress and sys.stderr is not None else True,  # None: shown on terminals
        )
        with open(part, "ab" if offset else "wb") as file, bar:
            received = 0
            while chunk := _read(response):
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
    if expected is not None and received < expected:
        raise _TransientError(f"the connection ended after {received:,} of {expected:,} bytes")


def _request(url: str, offset: int, timeout: float) -> http.client.HTTPResponse | None:
    """Ask for a file from an offset. None means that nothing lies beyond the offset."""
    headers = {"User-Agent": f"bert_keras/{__version__}", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=timeout
        )
        return response
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and offset:
                return None
            problem = f"the server answered {error.code} {error.reason}"
            if error.code >= 500:
                raise _TransientError(problem) from error
            raise ConnectionError(f"{url} could not be downloaded: {problem}.") from error
    except _ERRORS_OF_READING as error:
        raise _TransientError(_describe(error)) from error


def _starts_at(response: http.client.HTTPResponse, offset: int) -> bool:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return found is not None and int(found[1]) == offset


def _read(response: IO[bytes]) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except _ERRORS_OF_READING as error:
        raise _TransientError(_describe(error)) from error


def _describe(error: BaseException) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(reason) or type(reason).__name__
