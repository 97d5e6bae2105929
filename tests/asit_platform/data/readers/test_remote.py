import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from asit_platform.data.readers.audioset import read_audioset
from asit_platform.data.readers.folder import read_folder
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

QUERY = "?allow_bucket_creation=true&endpoint_override=127.0.0.1:{port}&scheme=http"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a folder in a bucket of a server on this machine, with `{}` for a path in it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    url = "s3://sounds/{}" + QUERY.format(port=port)
    Place.of(url.format("x")).filesystem.create_dir("sounds")
    yield url
    server.stop()


def put(url: str, name: str, content: bytes = b"sound") -> None:
    Place.of(url.format(name)).write_whole(content)


def test_sets_in_a_bucket_are_read_as_those_on_disk(bucket: str, tmp_path: Path) -> None:
    for name in ("mine/dog/a b.wav", "mine/dog/2.flac", "mine/cat/1.wav", "mine/cat/-2.wav"):
        put(bucket, name)
    put(bucket, "mine/cat/.hidden.wav")
    listing = read_folder(bucket.format("mine"), name="n", num_folds=2)
    assert [clip.clip_id for clip in listing.clips] == ["cat/-2", "cat/1", "dog/2", "dog/a b"]
    assert listing.clips[3].path == bucket.format("mine/dog/a b.wav")
    assert Place.of(listing.clips[3].path).read_bytes() == b"sound"

    put(bucket, "as/Y--PJHxphWEs_30.000.wav")
    put(bucket, "as/class_labels_indices.csv", b"index,mid,display_name\n0,/m/a,Dog\n")
    put(bucket, "as/balanced_train_segments.csv", b'--PJHxphWEs, 30.000, 40.000, "/m/a"\n')
    found = read_audioset(bucket.format("as"), with_eval=False)
    assert [clip.path for clip in found.clips] == [bucket.format("as/Y--PJHxphWEs_30.000.wav")]
    with pytest.raises(PlatformError, match=r"eval_segments\.csv\?.*: must exist, but it does not"):
        read_audioset(bucket.format("as"))
    with pytest.raises(PlatformError, match=r"none\?.*: dataset folder must exist"):
        read_folder(bucket.format("none"), name="n")
