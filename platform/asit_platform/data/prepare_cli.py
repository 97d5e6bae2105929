"""`asit data prepare`: one command for each data set as it lies on disk, and for people's own."""

from typing import Annotated, Literal

import typer

from asit_platform.data.listing import Listing
from asit_platform.data.prepare_command import prepare_command
from asit_platform.data.readers.audioset import read_audioset
from asit_platform.data.readers.csv_table import CsvColumns, read_csv_table
from asit_platform.data.readers.esc50 import read_esc50
from asit_platform.data.readers.fairseq import read_fairseq
from asit_platform.data.readers.folder import read_folder
from asit_platform.data.readers.fsd50k import read_fsd50k
from asit_platform.data.readers.json_manifest import read_json_manifests
from asit_platform.data.readers.librispeech import read_librispeech
from asit_platform.data.readers.manifests import LabelChoice
from asit_platform.data.readers.speech_commands import (
    read_speech_commands_v1,
    read_speech_commands_v2,
)
from asit_platform.data.readers.splits import TEST, TRAIN, VALIDATION
from asit_platform.data.readers.voxceleb import read_voxceleb1
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

app = typer.Typer(
    help="Turn audio files, on disk or in a bucket, into a dataset folder.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Name = Annotated[
    str | None, typer.Option(help="What tables call the set; the folder's name if not given.")
]
_Labels = Annotated[
    str | None,
    typer.Option(help="Csv of the labels: number, id, name (class_labels_indices.csv)."),
]
_LabelKind = Annotated[
    LabelChoice,
    typer.Option(help="Labels of a clip; auto: single where each has exactly one."),
]
_Folds = Annotated[
    int, typer.Option(help="Folds to deal the recordings to, where there are no splits.")
]


@prepare_command(app, "esc50")
def esc50(
    root: Annotated[
        str,
        typer.Option(
            help="Folder with audio/ and meta/esc50.csv: ESC-50, or the ESC-10 subset of ESC-50; "
            "wav, ogg, flac or mp3."
        ),
    ],
    subset: Annotated[
        Literal["all", "esc10"], typer.Option(help="Rows of the csv to take.")
    ] = "all",
) -> Listing:
    """ESC-50, or its ESC-10 subset: 50 or 10 classes, five folds."""
    return read_esc50(root, subset=subset)


@prepare_command(app, "audioset")
def audioset(
    root: Annotated[
        str, typer.Option(help="Folder of the sound files, named by their YouTube ids.")
    ],
    subset: Annotated[
        Literal["20k", "2m"],
        typer.Option(help="Train on the balanced list, or on the unbalanced one too."),
    ] = "20k",
    metadata: Annotated[
        str | None,
        typer.Option(
            help="Folder of the *_segments.csv and class_labels_indices.csv; --root if not given."
        ),
    ] = None,
    no_eval: Annotated[
        bool, typer.Option("--no-eval", help="Leave the evaluation segments out.")
    ] = False,
) -> Listing:
    """AudioSet: 527 classes, any number of them a clip; raw labels."""
    return read_audioset(root, subset=subset, metadata=metadata, with_eval=not no_eval)


@prepare_command(app, "speech-commands")
def speech_commands(
    root: Annotated[str, typer.Option(help="Folder of the unpacked archive.")],
    version: Annotated[
        Literal["v1", "v2"],
        typer.Option(help="v2: 35 words. v1: ten words, unknown and silence."),
    ] = "v2",
    test_root: Annotated[
        str | None,
        typer.Option(help="Of v1: folder of the unpacked speech_commands_test_set_v0.01."),
    ] = None,
) -> Listing:
    """Speech Commands: version 2 with 35 classes, or version 1 with twelve."""
    if version == "v2":
        if test_root is not None:
            raise PlatformError("--test-root is of --version v1; version 2 has its test clips")
        return read_speech_commands_v2(root)
    if test_root is None:
        raise PlatformError(
            "--version v1 must come with --test-root: the twelve classes are tested on a separate "
            "archive, speech_commands_test_set_v0.01; unpack it into a folder of its own"
        )
    return read_speech_commands_v1(root, test_root=test_root)


@prepare_command(app, "voxceleb1")
def voxceleb1(
    root: Annotated[str, typer.Option(help="Folder of the development and the test archive.")],
    split_list: Annotated[
        str | None, typer.Option(help="iden_split.txt; looked for in --root if not given.")
    ] = None,
) -> Listing:
    """VoxCeleb1 speaker identification: 1,251 speakers."""
    return read_voxceleb1(root, split_list=split_list)


@prepare_command(app, "librispeech")
def librispeech(
    root: Annotated[str, typer.Option(help="The folder LibriSpeech, or the one above it.")],
    subset: Annotated[
        list[str] | None,
        typer.Option(help="Such as train-clean-100; repeat for several; all if not given."),
    ] = None,
) -> Listing:
    """LibriSpeech, without labels, to pretrain on."""
    return read_librispeech(root, subsets=subset or None)


@prepare_command(app, "fsd50k")
def fsd50k(
    root: Annotated[
        str,
        typer.Option(
            help="Folder with FSD50K.ground_truth, FSD50K.dev_audio and FSD50K.eval_audio."
        ),
    ],
) -> Listing:
    """FSD50K: 200 classes, any number of them a clip."""
    return read_fsd50k(root)


@prepare_command(app, "json")
def json(
    train: Annotated[str | None, typer.Option(help="Manifest of the training clips.")] = None,
    validation: Annotated[str | None, typer.Option(help="Of the validation clips.")] = None,
    test: Annotated[str | None, typer.Option(help="Of the test clips.")] = None,
    labels: _Labels = None,
    root: Annotated[
        str | None,
        typer.Option(help="Folder that relative paths start at; the manifest's if not given."),
    ] = None,
    label_kind: _LabelKind = "auto",
    name: Annotated[str, typer.Option(help="What tables call the set.")] = "JSON manifest",
) -> Listing:
    """JSON manifests of AST, SSAST, Audio-MAE or ASiT."""
    files = {TRAIN: train, VALIDATION: validation, TEST: test}
    return read_json_manifests(files, name=name, labels=labels, root=root, label_kind=label_kind)


@prepare_command(app, "fairseq")
def fairseq(
    root: Annotated[str, typer.Option(help="Folder of train.tsv, valid.tsv, eval.tsv and .lbl.")],
    labels: Annotated[
        str | None,
        typer.Option(help="Csv of the labels; label_descriptors.csv in --root if not given."),
    ] = None,
    audio_root: Annotated[
        str | None, typer.Option(help="Folder of the sound; the first line of a tsv if not given.")
    ] = None,
    label_kind: _LabelKind = "auto",
    name: _Name = None,
) -> Listing:
    """Manifests of fairseq, MAE-AST or EAT."""
    return read_fairseq(
        root,
        name=name or _folder_name(root),
        labels=labels,
        audio_root=audio_root,
        label_kind=label_kind,
    )


@prepare_command(app, "folder")
def folder(
    root: Annotated[
        str,
        typer.Option(help="Its subfolders are the classes, or train, validation and test."),
    ],
    name: _Name = None,
    folds: _Folds = 5,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="Take every sound below, without labels.")
    ] = False,
) -> Listing:
    """Your own sounds: a class is a subfolder."""
    return read_folder(
        root, name=name or _folder_name(root), num_folds=folds, with_labels=not no_labels
    )


@prepare_command(app, "csv")
def csv(
    table: Annotated[str, typer.Option(help="Csv with a header, one row a clip.")],
    root: Annotated[
        str | None,
        typer.Option(help="Folder that relative paths start at; the csv's if not given."),
    ] = None,
    path_column: Annotated[str, typer.Option(help="Column of the sound file.")] = "path",
    label_column: Annotated[str | None, typer.Option(help="Of its label or labels.")] = None,
    label_separator: Annotated[
        str | None, typer.Option(help="Between the labels of a clip, if it may have several.")
    ] = None,
    fold_column: Annotated[
        str | None, typer.Option(help="Of its fold: a number, or train, validation, test.")
    ] = None,
    source_column: Annotated[
        str | None, typer.Option(help="Of the recording it was cut from; such clips share a fold.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="Of a unique id.")] = None,
    start_column: Annotated[
        str | None, typer.Option(help="Of the second of the file at which it begins.")
    ] = None,
    stop_column: Annotated[str | None, typer.Option(help="Of the second at which it ends.")] = None,
    labels: _Labels = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Between columns; found in the header if not given.")
    ] = None,
    name: _Name = None,
    folds: _Folds = 5,
) -> Listing:
    """Your own sounds: a csv whose columns you name."""
    columns = CsvColumns(
        path=path_column,
        label=label_column,
        fold=fold_column,
        source=source_column,
        clip_id=id_column,
        start=start_column,
        stop=stop_column,
    )
    return read_csv_table(
        table,
        columns,
        name=name or _folder_name(table).rsplit(".", 1)[0],
        root=root,
        label_separator=label_separator,
        vocabulary=labels,
        delimiter=delimiter,
        num_folds=folds,
    )


def _folder_name(path: str) -> str:
    place = Place.of(path)
    return place.absolute().name if place.is_local else place.name
