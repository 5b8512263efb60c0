"""Published files: found, downloaded, checked, refused. Small files in the original formats; no network."""

import dataclasses
import gzip
import hashlib
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from anyprop import data as ap_data
from anyprop.data import _higgs, _source, load
from anyprop.data._catalogue import DATASETS
from anyprop.data._idx import read_idx

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Two empty places to look at, and no network."""
    monkeypatch.setenv("ANYPROP_DATA", str(tmp_path / "chosen"))
    monkeypatch.setattr(_source.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache" / name))

    def no_network(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("requests.get", no_network)
    return tmp_path / "chosen", tmp_path / "cache" / "anyprop" / "data"


# --- small files in the original formats -----------------------------------------------------------


def idx(array):
    header = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


IMAGES = RNG.integers(0, 256, (12, 28, 28), dtype=np.uint8)
LABELS = (np.arange(12) % 10).astype(np.uint8)
PIXELS = RNG.integers(0, 256, (6, 4, 32, 32, 3), dtype=np.uint8)


def cifar(pixels, *labels):
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    return np.concatenate([*(np.full((len(pixels), 1), label, np.uint8) for label in labels), planes], 1).tobytes()


def tar(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


BATCHES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


def higgs_rows(n, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, 29)).astype(np.float32)
    rows[:, 0] = np.arange(n) % 2
    return rows


def higgs(rows):
    return gzip.compress("".join(",".join(map(str, row)) + "\n" for row in rows.tolist()).encode(), 1)


HIGGS_ROWS = higgs_rows(5_100)
FILES = {
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": idx(IMAGES),
        "train-labels-idx1-ubyte.gz": idx(LABELS),
        "t10k-images-idx3-ubyte.gz": idx(IMAGES[::-1]),
        "t10k-labels-idx1-ubyte.gz": idx(LABELS[::-1]),
    },
    "cifar10": {
        "cifar-10-binary.tar.gz": tar(
            {f"cifar-10-batches-bin/{n}": cifar(p, i) for i, (n, p) in enumerate(zip(BATCHES, PIXELS, strict=True))}
        )
    },
    "cifar100": {
        "cifar-100-binary.tar.gz": tar(
            {
                "cifar-100-binary/fine_label_names.txt": b"apple\n",
                "cifar-100-binary/test.bin": cifar(PIXELS[1], 19, 99),
                "cifar-100-binary/train.bin": cifar(PIXELS[0], 3, 42),
            }
        )
    },
    "higgs": {"HIGGS.csv.gz": higgs(HIGGS_ROWS)},
}


def publish(name, files, monkeypatch):
    """Let these small files be the published ones."""
    dataset = DATASETS[name]
    layouts = tuple(
        tuple(
            dataclasses.replace(file, checksum=f"md5:{hashlib.md5(files[file.name]).hexdigest()}")
            if file.checksum and file.name in files
            else file
            for file in layout
        )
        for layout in dataset.layouts
    )
    monkeypatch.setitem(DATASETS, name, dataclasses.replace(dataset, layouts=layouts))


def put(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.fixture(params=FILES)
def published(request, monkeypatch):
    publish(request.param, FILES[request.param], monkeypatch)
    return request.param


# --- what the readers read -------------------------------------------------------------------------


def test_fashion_mnist(folders, monkeypatch):
    publish("fashion-mnist", FILES["fashion-mnist"], monkeypatch)
    put(folders[0] / "fashion-mnist", FILES["fashion-mnist"])
    data = load("fashion-mnist")
    np.testing.assert_array_equal(data.train.x[..., 0], IMAGES)
    np.testing.assert_array_equal(data.test.y, LABELS[::-1])
    assert data.classes == 10


@pytest.mark.parametrize("form", ["archive", "batches"])
def test_cifar10(form, folders, monkeypatch):
    files = FILES["cifar10"]
    if form == "batches":
        files = {f"cifar-10-batches-bin/{n}": cifar(p, i) for i, (n, p) in enumerate(zip(BATCHES, PIXELS, strict=True))}
    publish("cifar10", files, monkeypatch)
    put(folders[0] / "cifar10", files)
    data = load("cifar10", augmentation=("flip", "crop"))
    np.testing.assert_array_equal(data.train.x, PIXELS[:5].reshape(-1, 32, 32, 3))
    np.testing.assert_array_equal(data.train.y, np.repeat(range(5), 4))
    np.testing.assert_array_equal(data.test.x, PIXELS[5])
    assert data.classes == 10


def test_cifar100_has_the_fine_labels(folders, monkeypatch):
    publish("cifar100", FILES["cifar100"], monkeypatch)
    put(folders[0] / "cifar100", FILES["cifar100"])
    data = load("cifar100")
    assert set(data.train.y) == {42}
    assert set(data.test.y) == {99}
    assert data.classes == 100
    np.testing.assert_array_equal(data.test.x, PIXELS[1])


def sorted_rows(*splits):
    rows = np.concatenate([np.column_stack([split.y.astype(np.float32), split.x]) for split in splits])
    return rows[np.lexsort(rows.T)]


def test_higgs_splits_its_rows_by_seed(folders):
    put(folders[0] / "higgs", FILES["higgs"])
    data = load("higgs", validation=30, standardise=True)
    assert [len(data.split(name)) for name in ("train", "validation", "test")] == [70, 30, 5_000]
    expected = HIGGS_ROWS[np.lexsort(HIGGS_ROWS.T)]
    np.testing.assert_array_equal(sorted_rows(data.train, data.validation, data.test), expected)
    assert data.transform.mean.shape == (28,)
    assert data.fingerprint() == load("higgs", validation=30, standardise=True).fingerprint()
    assert (load("higgs", seed=1).test.x != data.test.x).any()


def test_the_published_higgs_keeps_its_test_rows(folders, monkeypatch):
    put(folders[0] / "higgs", FILES["higgs"])
    monkeypatch.setattr(_higgs, "_PUBLISHED_ROWS", 5_100)
    monkeypatch.setattr(_higgs, "_PUBLISHED_TEST", 60)
    data = load("higgs")
    np.testing.assert_array_equal(data.test.x, HIGGS_ROWS[-60:, 1:])
    np.testing.assert_array_equal(sorted_rows(data.train), sorted_rows_of(HIGGS_ROWS[:-60]))
    assert (data.train.x != HIGGS_ROWS[:-60, 1:]).any()


def sorted_rows_of(rows):
    return rows[np.lexsort(rows.T)]


def test_parsed_higgs_is_kept_and_a_broken_copy_is_made_anew(folders, monkeypatch):
    put(folders[0] / "higgs", FILES["higgs"])
    first = load("higgs")
    (kept,) = (folders[1] / "higgs").iterdir()
    whole = kept.read_bytes()

    def not_again(path):
        raise AssertionError("parsed twice")

    with monkeypatch.context() as patch:
        patch.setattr(_higgs, "_parse", not_again)
        assert load("higgs").fingerprint() == first.fingerprint()
    for broken in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        kept.write_bytes(broken)
        assert load("higgs").fingerprint() == first.fingerprint()
        assert kept.read_bytes() == whole
    # Another file under the same name is not answered from the cache of the first.
    put(folders[0] / "higgs", {"HIGGS.csv.gz": higgs(higgs_rows(5_100, seed=1))})
    assert load("higgs").fingerprint() != first.fingerprint()


def test_higgs_loads_where_nothing_can_be_kept(folders):
    put(folders[0] / "higgs", FILES["higgs"])
    folders[1].mkdir(parents=True)
    (folders[1] / "higgs").write_text("a file where the folder should be")
    assert len(load("higgs").test) == 5_000


ROW = ",".join(["1", *["0.5"] * 28]) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        (ROW + ",".join(["1"] * 28) + "\n", "rows 1 to 2"),
        (",".join(["1"] * 28) + "\n", "28 columns"),
        (ROW + "\n" + ROW, "empty row"),
        (ROW + ROW.replace("0.5", "nan", 1), "not finite"),
        (ROW + ROW.replace("1", "2", 1), "neither 0 nor 1"),
        (ROW + ROW.replace("0.5", "", 1), "not rows of 29 numbers"),
        (ROW + ROW.replace("0.5", "x", 1), "not rows of 29 numbers"),
    ],
)
def test_higgs_refuses_rows_that_are_none(text, message, folders):
    put(folders[0] / "higgs", {"HIGGS.csv.gz": gzip.compress(text.encode())})
    with pytest.raises(ValueError, match=message):
        load("higgs")
    assert not (folders[1] / "higgs").exists()


# --- truncated and altered files -------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_file_is_refused(damage, published, folders):
    files = dict(FILES[published])
    name = next(iter(files))
    content = bytearray(files[name])
    if damage == "truncated":
        del content[-9:]  # a gzip stream ends with 8 bytes of checksum and length
    else:
        content[len(content) // 2] ^= 1
    files[name] = bytes(content)
    put(folders[0] / published, files)
    with pytest.raises(ValueError, match=name):
        load(published)
    with pytest.raises(ValueError, match=name):
        ap_data.fetch(published)
    reports = {report.file.name: report for report in ap_data.verify(published)}
    assert not reports.pop(name).ok
    assert all(report.ok for report in reports.values())


def test_a_damaged_package_is_refused(tmp_path, monkeypatch):
    whole = DATASETS["mnist"].folder / "mnist.xz"
    assert [report.ok for report in ap_data.verify("mnist")] == [True]
    assert ap_data.fetch("mnist") == (whole,)
    monkeypatch.setitem(DATASETS, "mnist", dataclasses.replace(DATASETS["mnist"], folder=tmp_path))
    with pytest.raises(FileNotFoundError, match="not whole"):
        load("mnist")
    for damaged in (whole.read_bytes()[:-1], whole.read_bytes()[:-1] + b"!"):
        (tmp_path / "mnist.xz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"mnist\.xz is truncated or altered"):
            load("mnist")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip at all", "not a whole gzip"),
        (idx(IMAGES)[:-9], "not a whole gzip"),
        (gzip.compress(b"\0\0"), "not an IDX file"),
        (gzip.compress(b"\0\0\x0d\x01" + bytes(8)), "not an IDX file"),
        (
            gzip.compress(gzip.decompress(idx(IMAGES))[:-1]),
            r"9407 bytes where its header, shape \(12, 28, 28\)",
        ),
    ],
    ids=["not gzip", "cut", "no header", "unknown type", "too short"],  # a gzip file holds the time it was made
)
def test_idx_is_read_whole_or_not_at_all(content, message, tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_idx(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar({"train.bin": cifar(PIXELS[0], 0, 1)}), "lacks test.bin"),
        (tar({"train.bin": cifar(PIXELS[0], 0, 1)[:-1], "test.bin": b""}), "not whole"),
        (FILES["cifar100"]["cifar-100-binary.tar.gz"][:-2000], "not a whole .tar.gz"),
        (
            tar({"train.bin": cifar(PIXELS[0], 0, 200), "test.bin": cifar(PIXELS[0], 0, 1)}),
            "label 200, out of range",
        ),
    ],
)
def test_an_archive_that_is_not_cifar_is_refused(content, message, folders, monkeypatch):
    files = {"cifar-100-binary.tar.gz": content}
    publish("cifar100", files, monkeypatch)
    put(folders[0] / "cifar100", files)
    with pytest.raises(ValueError, match=message):
        load("cifar100")


# --- finding and downloading -----------------------------------------------------------------------


class Response:
    """What `requests.get` returns, as far as a download looks at it."""

    def __init__(self, content):
        self.content = content
        self.headers = {"content-length": str(len(content))}

    def raise_for_status(self):
        pass

    def iter_content(self, chunk_size):
        return (self.content[i : i + chunk_size] for i in range(0, len(self.content), chunk_size))


def test_nowhere_to_be_found_names_every_place(published, folders):
    with pytest.raises(FileNotFoundError) as error:
        load(published)
    message = str(error.value)
    for place in ap_data.where(published):
        assert not place.found
        assert str(place.path) in message
    for folder in folders:
        assert str(folder / published) in message
    assert "no route to host" in message
    assert "ANYPROP_DATA" in message
    assert ap_data.verify(published) == []
    assert list(folders[1].rglob("*.*")) == []  # nothing is left behind


def test_download_is_kept_and_found_again(published, folders, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr("requests.get", lambda url, **_: Response(FILES[published][url.rsplit("/", 1)[-1]]))
        paths = ap_data.fetch(published)
    assert capsys.readouterr().out == ""  # the progress bar is not part of any output
    assert [path.name for path in paths] == list(FILES[published])
    assert all(path.parent == folders[1] / published for path in paths)
    assert ap_data.fetch(published) == paths
    assert all(report.ok for report in ap_data.verify(published))
    assert {place.path for place in ap_data.where(published) if place.found} == set(paths)
    (listing,) = (row for row in ap_data.available() if row.name == published)
    assert listing.status == "on this machine"
    assert load(published).classes == listing.classes
    assert not [path for path in (folders[1] / published).iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("sent", ["half", "a web page", "nothing"])
def test_a_broken_download_leaves_nothing_behind(sent, published, folders, monkeypatch):
    def get(url, **_):
        whole = FILES[published][url.rsplit("/", 1)[-1]]
        return Response({"half": whole[: len(whole) // 2], "a web page": b"<html>moved</html>", "nothing": b""}[sent])

    monkeypatch.setattr("requests.get", get)
    with pytest.raises(ValueError, match="thrown away"):
        load(published)
    assert [path for path in folders[1].rglob("*") if path.is_file()] == []


def test_the_chosen_folder_comes_before_the_cache(folders, monkeypatch):
    publish("cifar100", FILES["cifar100"], monkeypatch)
    for folder in folders:
        put(folder / "cifar100", FILES["cifar100"])
    assert ap_data.fetch("cifar100")[0].parent == folders[0] / "cifar100"
    monkeypatch.delenv("ANYPROP_DATA")
    assert ap_data.fetch("cifar100")[0].parent == folders[1] / "cifar100"


def test_an_incomplete_set_of_files_is_completed_in_the_cache(folders, monkeypatch):
    files = FILES["fashion-mnist"]
    publish("fashion-mnist", files, monkeypatch)
    (first, content), *_ = files.items()
    put(folders[1] / "fashion-mnist", {first: content})
    asked = []

    def get(url, **_):
        asked.append(Path(url).name)
        return Response(files[asked[-1]])

    monkeypatch.setattr("requests.get", get)
    assert len(load("fashion-mnist").train) == 12
    assert asked == list(files)[1:]


def test_a_cache_that_cannot_be_written_is_named(published, folders):
    folders[1].parent.mkdir(parents=True)
    folders[1].write_text("a file where the folder should be")
    with pytest.raises(FileNotFoundError, match="cannot be written"):
        load(published)


@pytest.mark.parametrize("ask", [ap_data.fetch, ap_data.verify, ap_data.where])
def test_unknown_data_sets_are_answered_with_the_nearest(ask):
    with pytest.raises(ValueError, match=r"cifar-10.*cifar10"):
        ask("cifar-10")
