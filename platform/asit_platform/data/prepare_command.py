"""One way to make a command of `asit data prepare` from a reader: its flags, and those of all."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from asit_core.spectrogram import LogMelConfig
from asit_platform.data.cli_build import build_listing
from asit_platform.data.listing import Content, Listing
from asit_platform.data.options import PrepareOptions


def prepare_command(
    app: typer.Typer, name: str
) -> Callable[[Callable[..., Listing]], Callable[..., Listing]]:
    """Register a function that returns a listing as a command that builds it.

    Args:
        app: The command is added to it.
        name: What the command is called.

    Returns:
        A decorator that leaves the function as it is. Its parameters become flags; those of every
        dataset folder follow them.
    """

    def register(read: Callable[..., Listing]) -> Callable[..., Listing]:
        own = inspect.signature(read).parameters

        def run(**flags: Any) -> None:
            mine = {key: flags.pop(key) for key in own}
            build = _BuildFlags(**flags)  # says what is wrong with one before the folder is walked
            # no name for the listing: of two million clips, it is a gigabyte to let go of
            build_listing(read(**mine), build.out, build.options, as_json=build.as_json)

        shared = inspect.signature(_BuildFlags).parameters
        parameters = sorted(
            [*own.values(), *shared.values()],
            key=lambda parameter: parameter.default is not inspect.Parameter.empty,
        )
        # Typer reads both
        run.__signature__ = inspect.Signature(  # pyright: ignore[reportFunctionMemberAccess]
            [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        )
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__doc__ = read.__doc__
        app.command(name)(run)
        return read

    return register


class _BuildFlags:
    """The flags of every dataset folder."""

    def __init__(
        self,
        *,
        out: Annotated[
            str, typer.Option(help="Dataset folder to make: a path, or an s3:// or gs:// URL.")
        ],
        sample_rate: Annotated[int, typer.Option(help="Resample to this rate, in Hz.")] = 32000,
        num_mels: Annotated[int, typer.Option(help="Mel bins of the spectrogram.")] = 128,
        content: Annotated[
            Content, typer.Option(help="What shards hold: spectrograms, or 16-bit samples.")
        ] = "log_mel",
        keep_silent: Annotated[
            bool, typer.Option("--keep-silent", help="Keep clips of digital silence.")
        ] = False,
        max_skipped: Annotated[
            float, typer.Option(help="Share of the clips that may be unusable.")
        ] = 0.05,
        as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    ) -> None:
        self.out = out
        self.as_json = as_json
        self.options = PrepareOptions(
            front_end=LogMelConfig(sample_rate_hz=sample_rate, num_mel_bins=num_mels),
            content=content,
            keep_silent=keep_silent,
            max_skipped=max_skipped,
        )
