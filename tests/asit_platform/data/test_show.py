"""The page of a dataset: its counts, pictures and sounds are those of the clips."""

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from PIL import Image

from asit_core.spectrogram import LogMelConfig
from asit_core.waveform import load_waveform
from asit_platform.cli import main
from asit_platform.data.dataset import CLIPS_FILE, DatasetInfo
from asit_platform.data.prepare import PrepareOptions, prepare
from asit_platform.data.readers.esc50 import read_esc50
from asit_platform.data.show import Durations, Example, Fold, Overview, look_at
from asit_platform.data.show_media import file_sound, sound_mp3, spectrogram_png
from asit_platform.data.show_page import render
from asit_platform.data.summary import summary_lines
from asit_platform.errors import PlatformError

TAGS = re.compile(r"<(\w+)")


@pytest.fixture(scope="module")
def overview(built_once: Path) -> Overview:
    return look_at(built_once)


def _page(overview: Overview) -> str:
    return render(overview, summary_lines(overview.info))


def _decoded(page: str, kind: str) -> list[bytes]:
    return [base64.b64decode(text) for text in re.findall(rf'"data:{kind};base64,([^"]+)"', page)]


def test_a_spectrogram_is_drawn_low_frequencies_down_and_loud_bright() -> None:
    log_mel_TF = np.full((50, 16), -10.0, dtype=np.float16)
    log_mel_TF[:25, :4] = 5.0  # loud and low, in the first half
    picture = Image.open(io.BytesIO(spectrogram_png(log_mel_TF, low=-10.0, high=5.0))).convert("L")
    assert picture.size == (50, 16)
    brightness = np.asarray(picture)
    assert (brightness[12:, :25] > 200).all()
    assert (brightness[:12] < 10).all()
    assert (brightness[:, 25:] < 10).all()
    levels = np.linspace(-12.0, 7.0, 64).repeat(2).reshape(-1, 1)  # past either end too
    ramp = Image.open(io.BytesIO(spectrogram_png(levels, low=-10.0, high=5.0))).convert("L")
    assert (np.diff(np.asarray(ramp)[0].astype(int)) >= 0).all()


def test_a_long_clip_is_drawn_no_wider_than_a_page() -> None:
    noise_TF = np.random.default_rng(0).standard_normal((6000, 128))
    content = spectrogram_png(noise_TF, low=-2.0, high=2.0)
    assert Image.open(io.BytesIO(content)).size == (1000, 128)


@pytest.mark.parametrize(
    ("rate_hz", "mp3_hz"), [(16000, 16000), (10000, 11025), (32000, 32000), (96000, 48000)]
)
def test_a_sound_keeps_its_pitch_and_length_as_mp3(rate_hz: int, mp3_hz: int) -> None:
    time_S = torch.arange(2 * rate_hz) / rate_hz
    tone_S = 3.0 * torch.sin(2 * torch.pi * 440.0 * time_S)  # a float file louder than full scale
    samples, found_hz = soundfile.read(io.BytesIO(sound_mp3(tone_S, rate_hz)))
    assert found_hz == mp3_hz
    assert len(samples) / found_hz == pytest.approx(2.0, abs=0.1)
    middle = samples[found_hz // 2 : found_hz // 2 + found_hz]
    assert np.abs(np.fft.rfft(middle)).argmax() == pytest.approx(440, abs=1)
    assert 0.7 < np.abs(middle).max() < 1.2


@pytest.mark.ray
def test_counts_are_those_of_the_clips(overview: Overview) -> None:
    assert overview.class_counts == (("dog", 30), ("rain", 30))
    assert [(fold.name, fold.num_clips) for fold in overview.folds] == [
        (f"fold {number}", 12) for number in range(1, 6)
    ]
    total = sum(fold.duration_s for fold in overview.folds)
    assert total == pytest.approx(overview.info.duration_s)
    durations = overview.durations
    assert durations[:3] == pytest.approx((0.375, 0.52, 0.665))  # 6,000 samples to 10,640
    assert sum(durations.counts) == 60


@pytest.mark.ray
def test_examples_are_clips_of_all_labels_with_their_sounds(
    overview: Overview, built_once: Path
) -> None:
    assert len(overview.examples) == 20
    assert {example.labels for example in overview.examples} == {("dog",), ("rain",)}
    clips = {clip["clip_id"]: clip for clip in overview.info.clips().to_pylist()}
    for example in overview.examples:
        clip = clips[example.clip_id]
        assert Image.open(io.BytesIO(example.picture)).size == (clip["num_frames"], 16)
        assert example.sound is not None
        heard, rate_hz = soundfile.read(io.BytesIO(example.sound), dtype="float32")
        wanted = load_waveform(clip["path"], sample_rate_hz=rate_hz).numpy()
        # Its own file: MP3 keeps the energy of noise, and begins a little late.
        assert np.square(heard).sum() == pytest.approx(np.square(wanted).sum(), rel=0.3)
        assert 0.0 <= len(heard) / rate_hz - clip["duration_s"] < 0.15


@pytest.mark.ray
def test_the_page_needs_nothing_but_itself(overview: Overview, built_once: Path) -> None:
    page = _page(overview)
    assert page == _page(look_at(built_once))
    assert len(page) < 1_000_000
    assert "://" not in page
    assert {"script", "link", "iframe", "form"}.isdisjoint(TAGS.findall(page))
    assert _decoded(page, "image/png") == [example.picture for example in overview.examples]
    assert _decoded(page, "audio/mpeg") == [example.sound for example in overview.examples]


GONE = (
    "ftp://host/sound.wav",  # no place that is known
    "s3://name:password@bucket/sound.wav",
    "s3://bucket/sound.wav?nonsense=1",  # a bucket that cannot be reached
)


@pytest.mark.parametrize("path", GONE)
def test_a_sound_that_cannot_be_reached_is_none(path: str) -> None:
    assert file_sound(path, start_s=0.0, stop_s=None, rate_hz=16000) is None


@pytest.mark.ray
@pytest.mark.parametrize("path", GONE)
def test_sounds_that_cannot_be_reached_are_said_to_be_gone(built: Path, path: str) -> None:
    clips = pq.read_table(built / CLIPS_FILE)
    column = clips.column_names.index("path")
    paths = pa.array([path] * len(clips), pa.string())
    pq.write_table(clips.set_column(column, "path", paths), built / CLIPS_FILE)
    assert _page(look_at(built)).count("its sound file is no longer where it was") == 20


@pytest.mark.ray
def test_sounds_that_are_gone_are_said_to_be(built: Path, built_once: Path, tmp_path: Path) -> None:
    sounds = built_once.parent / "esc50"
    moved = shutil.move(sounds, tmp_path / "moved")
    try:
        overview = look_at(built)
    finally:
        shutil.move(moved, sounds)
    assert {example.sound for example in overview.examples} == {None}
    page = _page(overview)
    assert page.count("its sound file is no longer where it was") == 20
    assert len(_decoded(page, "image/png")) == 20


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_waveform_shards_bring_their_own_sound(
    esc50: Path, tmp_path: Path, front_end: LogMelConfig
) -> None:
    out = tmp_path / "waveforms"
    prepare(read_esc50(esc50), out, PrepareOptions(front_end=front_end, content="waveform"))
    shutil.rmtree(esc50)
    overview = look_at(out)
    clips = {clip["clip_id"]: clip for clip in overview.info.clips().to_pylist()}
    assert len(overview.examples) == 20
    for example in overview.examples:
        assert example.sound is not None
        frames = clips[example.clip_id]["num_frames"]
        assert Image.open(io.BytesIO(example.picture)).size == (frames, 16)


@pytest.mark.ray
def test_names_are_shown_as_they_are_and_many_classes_are_folded_away(info: DatasetInfo) -> None:
    overview = Overview(
        info=info,
        class_counts=tuple((f"<b>&{number}", 100 - number) for number in range(50)),
        folds=(Fold("<u>train</u>", 3, 6.0),),
        durations=Durations(2.0, 2.0, 2.0, (3,)),
        examples=(Example('"><script>', (), "train", 2.0, b"png", None),),
    )
    page = render(overview, ["<name>: 3 clips", "warning: 2 < 3"])
    assert {"script", "name", "u"}.isdisjoint(TAGS.findall(page))
    assert "&lt;u&gt;train&lt;/u&gt;" in page
    assert '<p class="warning">warning: 2 &lt; 3</p>' in page
    shown, folded = page.split("<summary>the 20 rarer ones</summary>")
    assert shown.count("&lt;b&gt;&amp;") == 30
    assert folded.count("&lt;b&gt;&amp;") == 20
    assert "Every clip lasts 2.00 s." in page
    assert "no label" in page
    unlabelled = render(overview._replace(class_counts=()), ["name: 3 clips"])
    assert "The clips have no labels." in unlabelled


@pytest.mark.ray
def test_by_command(built_once: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pages" / "page.html"
    command = ["data", "show", str(built_once), "--out"]
    assert main([*command, str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ESC-50: 60 clips, 2 labels, 5 folds")
    assert "durations: 0.38 s to 0.67 s, median 0.52 s" in lines
    assert "clips of a class: 30 (rain) to 30 (dog)" in lines
    assert lines[-1] == f"written: {out}"
    assert out.read_text().startswith("<!doctype html>")
    assert main([*command, str(out / "page.html")]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error: {out}/page.html: --out must be writable, but")
    assert shown.err.count("\n") == 1


@pytest.mark.ray
def test_a_damaged_shard_is_one_line(built: Path) -> None:
    for shard in DatasetInfo.read(built).shards:
        path = built / shard.file
        content = bytearray(path.read_bytes())
        content[1000:12_000] = bytes(11_000)  # the footer is whole
        path.write_bytes(content)
    with pytest.raises(PlatformError, match=r"parquet: shard must be readable, but .*data check"):
        look_at(built)
