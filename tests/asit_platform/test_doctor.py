import json
import os
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from asit_platform import doctor


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_complete_machine_is_healthy(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-m", "asit_platform", "doctor", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    content = json.loads(done.stdout)
    assert (content["healthy"], done.returncode) == (True, 0), content["findings"]
    states = {finding["topic"]: finding["state"] for finding in content["findings"]}
    assert {"python", "asit", "torch", "ray", "optuna", "plotly", "cpu", "sound"} <= set(states)
    assert len(states) == len(content["findings"])


def test_a_missing_package_comes_with_its_remedy():
    finding = doctor._package(Requirement("no-such-thing>=3"), is_optional=False)
    assert (finding.state, finding.text) == ("bad", "not installed; no-such-thing>=3 is needed")
    assert finding.remedy is not None
    assert "pip install '.[platform,dashboards]'" in finding.remedy
    assert doctor._package(Requirement("no-such-thing"), is_optional=True).state == "note"


def test_another_version_comes_with_its_remedy():
    finding = doctor._package(Requirement("ray==1.0"), is_optional=False)
    assert finding.state == "bad"
    assert finding.text.endswith("but ray==1.0 is needed")
    assert finding.remedy == "pip install 'ray==1.0'"


def test_a_check_that_fails_is_a_finding(monkeypatch):
    monkeypatch.setattr(doctor, "_ray", doctor._python)
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    findings = {finding.topic: finding for finding in doctor.examine()}
    assert findings["devices"].state == "bad"
    assert "torchaudio" in findings["devices"].text


def test_a_bad_finding_makes_the_exit_code_1(monkeypatch, capsys):
    bad = doctor.Finding("ray", "bad", "not installed", "pip install ray")
    monkeypatch.setattr(doctor, "examine", lambda: [bad])
    with pytest.raises(doctor.typer.Exit) as exit_:
        doctor.doctor()
    assert exit_.value.exit_code == 1
    assert capsys.readouterr().out == ("MISSING ray: not installed\n        -> pip install ray\n")
