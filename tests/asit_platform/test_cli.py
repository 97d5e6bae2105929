import importlib
import subprocess
import sys

import pytest

from asit_platform import cli
from asit_platform.errors import PlatformError

PLUGIN = """
import typer
from asit_core.presets import create_config
from asit_platform.errors import PlatformError

def greet(who: str = "you") -> None:
    'Say hello.'
    typer.echo(f"hello {who}")

def refuse() -> None:
    raise PlatformError("data/: no such folder; asit data synth --out data makes one")

def refuse_in_core() -> None:
    create_config("asit", size="huge")

def stumble() -> None:
    int("x")

def leave() -> None:
    raise typer.Exit(3)

def interrupt() -> None:
    raise KeyboardInterrupt

app = typer.Typer()
app.command()(greet)

@app.callback()
def nothing() -> None:
    'Keep the group a group.'
"""
ENTRY_POINTS = """
[asit.commands]
t-greet = asit_test_plugin:greet
t-group = asit_test_plugin:app
t-refuse = asit_test_plugin:refuse
t-refuse-in-core = asit_test_plugin:refuse_in_core
t-stumble = asit_test_plugin:stumble
t-leave = asit_test_plugin:leave
t-interrupt = asit_test_plugin:interrupt
t-broken = no_such_module:app
t-loud = asit_test_loud:app
"""


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """A second distribution, installed beside asit as any other is."""
    (tmp_path / "asit_test_plugin.py").write_text(PLUGIN)
    (tmp_path / "asit_test_loud.py").write_text("raise SystemError('imported')")
    metadata = tmp_path / "asit_test_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: asit-test-plugin\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield
    sys.modules.pop("asit_test_plugin", None)


@pytest.mark.usefixtures("plugins")
class TestMain:
    def test_functions_and_apps_are_commands(self, capsys):
        assert cli.main(["t-greet", "--who", "all"]) == 0
        assert cli.main(["t-group", "greet"]) == 0
        assert capsys.readouterr().out == "hello all\nhello you\n"

    @pytest.mark.parametrize(
        ("command", "line"),
        [
            ("t-refuse", "error: data/: no such folder; asit data synth --out data makes one\n"),
            (
                "t-refuse-in-core",
                "error: size must be one of nano, tiny, small, base, but got 'huge'\n",
            ),
        ],
    )
    def test_what_a_user_can_mend_is_one_line_and_exit_code_2(self, command, line, capsys):
        assert cli.main([command]) == 2
        assert capsys.readouterr() == ("", line)

    def test_bugs_keep_their_traceback(self):
        with pytest.raises(ValueError, match="invalid literal"):
            cli.main(["t-stumble"])

    def test_a_broken_plugin_breaks_only_itself(self, capsys):
        assert cli.main(["--help"]) == 0
        help_text = capsys.readouterr().out
        assert "hello" in help_text
        assert "cannot be loaded" in help_text
        assert cli.main(["t-greet"]) == 0
        assert cli.main(["t-broken", "--any", "thing"]) == 2
        error = capsys.readouterr().err
        assert "command 't-broken' of asit-test-plugin cannot be loaded" in error
        assert "asit doctor" in error

    def test_exit_codes(self, capsys):
        assert cli.main(["t-leave"]) == 3
        assert cli.main(["t-interrupt"]) == 130
        assert cli.main([]) == 2
        assert cli.main(["nonsense"]) == 2
        assert "No such command 'nonsense'" in capsys.readouterr().err

    def test_only_the_asked_command_is_loaded(self, capsys):
        assert cli.main(["-v", "t-greet"]) == 0
        assert "asit_test_loud" not in sys.modules
        assert cli.main(["t-loud"]) == 2
        assert "cannot be loaded: SystemError: imported" in capsys.readouterr().err


@pytest.mark.usefixtures("plugins")
class TestCallCommand:
    def test_it_runs_a_function_or_an_app(self, capsys):
        assert cli.call_command("t-greet", "--who", "all")
        assert cli.call_command("t-group", "greet")
        assert capsys.readouterr().out == "hello all\nhello you\n"

    def test_it_is_false_without_a_working_command(self):
        assert not cli.call_command("absent")
        assert not cli.call_command("t-broken")

    def test_errors_pass_through(self):
        with pytest.raises(PlatformError, match="no such folder"):
            cli.call_command("t-refuse")
        with pytest.raises(PlatformError, match="`asit t-leave` ended with exit code 3"):
            cli.call_command("t-leave")


def test_python_m_and_the_version():
    done = subprocess.run(
        [sys.executable, "-m", "asit_platform", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("asit ")
    assert done.stderr == ""


def test_the_commands_of_both_packages_are_installed():
    names = {point.name for point in cli.entry_points(group=cli.COMMAND_GROUP)}
    assert {"data", "sweep", "doctor", "convert", "embed", "report", "dashboard"} <= names
