import logging
from pathlib import Path

import pytest

from asit_core.presets import create_config
from asit_core.probe import ProbeConfig
from asit_platform.errors import PlatformError
from asit_platform.sections import ParameterSpec, SplitSpec
from asit_platform.spec import load_sweep, trial_fingerprint
from asit_platform.trial_config import TrialConfig, leaf_paths, merge, to_plain, with_parameters
from asit_platform.validation import InvalidError, validate
from asit_platform.yaml_file import format_yaml

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"
SWEEP = """
version: 1
kind: sweep
name: small
question: Does it work?
base: asit/nano
data: some/where
trial: {pretrain: {epochs: 4, masking: {ratio: 0.5}}, probe: {kind: knn}}
metric: {name: probe/accuracy, goal: maximize}
search:
  num_samples: 3
  parameters:
    pretrain.masking.ratio: {min: 0.3, max: 0.8}
    pretrain.projection_head.bottleneck_dim: {min: 32, max: 64, log: true}
"""


@pytest.fixture
def sweep_file(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    return path


def lines_of(path, *overrides):
    with pytest.raises(PlatformError) as caught:
        load_sweep(path, overrides)
    return str(caught.value).replace(f"{path.parent}/", "").splitlines()


class TestLoading:
    def test_the_quickstart_is_legal_and_as_promised(self):
        spec = load_sweep(QUICKSTART)
        assert spec.search.num_samples >= 12
        assert (spec.search.method, spec.scheduler.type) == ("tpe", "asha")
        assert (spec.split.train, spec.split.select, spec.split.test) == ((1, 2, 3), 4, 5)
        searched = " ".join(spec.search.parameters)
        for word in ("ratio", "block_max", "num_prototypes", "bottleneck_dim"):
            assert word in searched
        for word in ("teacher.temperature", "teacher.momentum", "weight"):
            assert word in searched

    def test_trial_holds_the_base_and_the_changes(self, sweep_file):
        spec = load_sweep(sweep_file)
        config = spec.resolve({})
        assert config.pretrain.epochs == 4
        assert config.probe == ProbeConfig(kind="knn")
        assert config.pretrain.encoder == create_config("asit", size="nano").encoder
        assert spec.to_dict()["trial"] == to_plain(config)
        assert spec.to_dict()["data"] == "some/where"

    def test_options_change_the_file(self, sweep_file):
        spec = load_sweep(
            sweep_file,
            [
                "name=mine",
                "trial.pretrain.optimizer.min_lr=1e-5",
                "trial.pretrain.pretext.clip_distillation=null",
                "search.parameters.pretrain.masking.ratio=null",
                "search.parameters.pretrain.masking.align={values: [1, 16]}",
            ],
        )
        assert spec.name == "mine"
        assert spec.resolve({}).pretrain.optimizer.min_lr == 1e-5
        assert spec.resolve({}).pretrain.pretext.clip_distillation is None
        assert set(spec.search.parameters) == {
            "pretrain.projection_head.bottleneck_dim",
            "pretrain.masking.align",
        }

    def test_limits_have_the_settings_type(self, sweep_file):
        parameters = load_sweep(
            sweep_file,
            ["search.parameters.pretrain.pretext.reconstruction.weight={min: 1, max: 4, step: 1}"],
        ).search.parameters
        whole = parameters["pretrain.projection_head.bottleneck_dim"]
        assert whole.is_integer
        assert isinstance(whole.min, int)
        weight = parameters["pretrain.pretext.reconstruction.weight"]
        assert not weight.is_integer
        assert isinstance(weight.min, float)

    def test_a_pretext_metric_is_warned_of(self, sweep_file, caplog, monkeypatch):
        monkeypatch.setattr(logging.getLogger("asit_platform"), "propagate", True)
        load_sweep(sweep_file)
        assert caplog.text == ""
        load_sweep(sweep_file, ["metric.name=loss/total"])
        assert "pretext loss" in caplog.text
        assert "probe/accuracy" in caplog.text


class TestFaults:
    def test_all_are_reported_at_once_with_their_source(self, sweep_file):
        sweep_file.write_text(SWEEP.replace("masking: {ratio: 0.5}", "masking: {ratoi: 0.5}"))
        assert lines_of(sweep_file, "split.select=3", "nmae=x", "search.num_samples=two") == [
            "-S nmae=x: unknown key 'nmae'; did you mean 'name'?",
            "-S split.select=3: split.select must not be one of train [1, 2, 3], but got 3",
            "-S search.num_samples=two: search.num_samples must be an integer, but got 'two'",
            "sweep.yaml: unknown key 'trial.pretrain.masking.ratoi'; did you mean 'ratio'?",
        ]

    @pytest.mark.parametrize(
        ("option", "line"),
        [
            (
                "trial.pretrain.masking.ratio=1.5",
                "trial.pretrain.masking.ratio must be in [0, 1), but got 1.5",
            ),
            (
                "search.parameters.pretrain.masking.ratio.max=1.5",
                "search.parameters.pretrain.masking.ratio.max: "
                "trial.pretrain.masking.ratio must be in [0, 1), but got 1.5",
            ),
            (
                "search.parameters.pretrain.masking.ratoi={min: 0.1, max: 0.2}",
                "search.parameters.pretrain.masking.ratoi must be a setting of the trial; "
                "did you mean 'pretrain.masking.ratio'?",
            ),
            (
                "search.parameters.probe.kind={values: [knn, svm]}",
                "search.parameters.probe.kind.values[1]: "
                "trial.probe.kind must be 'linear' or 'knn', but got 'svm'",
            ),
            (
                "search.parameters.pretrain.projection_head.bottleneck_dim.max=64.5",
                "search.parameters.pretrain.projection_head.bottleneck_dim.max: "
                "trial.pretrain.projection_head.bottleneck_dim must be an integer, but got 64.5",
            ),
            (
                "search.parameters.pretrain.epochs={min: 1, max: 4}",
                "search.parameters.pretrain.epochs: all trials of a sweep are equally long; "
                "set trial.pretrain.epochs instead",
            ),
            (
                "scheduler={type: asha, grace_period: 5}",
                "scheduler.grace_period must be <= trial.pretrain.epochs (4), but got 5",
            ),
            (
                "resources.num_workers=32",
                "resources.num_workers times trial.pretrain.donor_group",
            ),
            ("base=asitt/nano", "base must be PRESET/SIZE (asit|asit_code|asit_paper|"),
            ("base=study:none/best", "no study 'none'"),
            (
                "metric.name=probe/acuracy",
                "metric.name must be a metric that trials report (probe/accuracy, ",
            ),
            (
                "search.parameters.pretrain.encoder.embed_dim={min: 96, max: 192}",
                "search.parameters.pretrain.encoder.embed_dim: the range holds 97: ",
            ),
            ("version=2", "version must be 1, but got 2"),
            ("kind=ablation", "kind must be 'sweep', but got 'ablation'"),
            ("name=../up", "name must be letters, digits, '.', '_' and '-', but got '../up'"),
            ("metric.goal=max", "metric.goal must be 'maximize' or 'minimize', but got 'max'"),
            ("trial=3", "trial must be a mapping, but got 3"),
            ("base=3", "base must be a string, but got 3"),
        ],
    )
    def test_each_names_option_path_rule_and_value(self, sweep_file, option, line):
        (found,) = lines_of(sweep_file, option)
        assert found.startswith(f"-S {option}: {line}")

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("search.parameters.pretrain.masking.ratio.max=.inf", "Infinity"),
            ("trial.pretrain.optimizer.lr_per_256=.inf", "Infinity"),
            ("trial.pretrain.teacher.temperature=-1e999", "-Infinity"),
            ("resources.cpus_per_worker=.nan", "NaN"),
        ],
    )
    def test_numbers_must_be_finite(self, sweep_file, option, value):
        path = option.partition("=")[0]
        assert lines_of(sweep_file, option) == [
            f"-S {option}: {path} must be finite, but got {value}"
        ]

    def test_limits_must_go_together(self, sweep_file):
        (line,) = lines_of(
            sweep_file,
            "search.parameters.pretrain.masking.ratio=null",
            "search.parameters.pretrain.batch_size={values: [32, 48]}",
            "search.parameters.pretrain.donor_group={values: [8, 16, 32]}",
            "search.parameters.pretrain.projection_head.bottleneck_dim=null",
        )
        assert line.endswith(
            "search.parameters: pretrain.batch_size=48 with pretrain.donor_group=32: trial."
            "pretrain.batch_size must be a multiple of donor_group (32), but got 48"
        )

    def test_a_parameter_below_an_absent_part_says_what_is_absent(self, sweep_file):
        (line,) = lines_of(
            sweep_file,
            "trial.pretrain.pretext.clip_distillation=null",
            "search.parameters.pretrain.pretext.clip_distillation.weight={min: 0.1, max: 1.0}",
        )
        assert line.endswith(
            "must be a setting of the trial, but trial.pretrain.pretext.clip_distillation is null"
        )


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({}, "p: must have min and max, or values"),
        ({"min": 0.1}, "p: must have min and max, or values"),
        ({"min": 2, "max": 1}, "p.min must be below max (1), but got 2"),
        ({"min": 0, "max": 1, "log": True}, "p.min must be > 0 where log is true, but got 0"),
        ({"min": 1, "max": 2, "step": 0}, "p.step must be > 0 and without log, but got 0"),
        ({"values": []}, "p.values must hold at least one value, but got []"),
        (
            {"values": [1], "min": 1},
            "p.values must stand alone, but min, max, log or step is given too",
        ),
    ],
)
def test_a_parameter_is_a_range_or_a_list(content, line):
    with pytest.raises(InvalidError) as caught:
        validate(ParameterSpec, content, path="p")
    assert str(caught.value) == line


class TestBases:
    def test_a_file_may_stand_on_another(self, sweep_file):
        folder = sweep_file.parent
        (folder / "a.yaml").write_text("base: asit/tiny\npretrain: {epochs: 7, batch_size: 64}")
        (folder / "b.yaml").write_text("base: a.yaml\npretrain: {batch_size: 32}")
        spec = load_sweep(sweep_file, ["base=b.yaml"])
        config = spec.resolve({}).pretrain
        assert (config.encoder.embed_dim, config.epochs, config.batch_size) == (192, 4, 32)

    def test_faults_name_the_base_file(self, sweep_file):
        (sweep_file.parent / "a.yaml").write_text("base: asit/nano\npretrain: {epoch: 7}")
        (line,) = lines_of(sweep_file, "base=a.yaml")
        assert line == (
            "-S base=a.yaml: a.yaml: unknown key 'pretrain.epoch'; did you mean 'epochs'?"
        )

    def test_a_circle_is_refused(self, sweep_file):
        (sweep_file.parent / "a.yaml").write_text("base: b.yaml")
        (sweep_file.parent / "b.yaml").write_text("base: a.yaml")
        (line,) = lines_of(sweep_file, "base=a.yaml")
        assert line.endswith("base leads back to this file")


class TestResolve:
    def test_parameters_replace_settings_and_leave_the_spec_alone(self, sweep_file):
        spec = load_sweep(sweep_file)
        config = spec.resolve({"pretrain.masking.ratio": 0.4, "probe.kind": "linear"})
        untouched = spec.resolve({}).pretrain.masking
        assert config.pretrain.masking is not None
        assert untouched is not None
        assert (config.pretrain.masking.ratio, config.probe.kind) == (0.4, "linear")
        assert untouched.ratio == 0.5

    def test_what_does_not_go_together_is_refused(self, sweep_file):
        spec = load_sweep(sweep_file)
        with pytest.raises(PlatformError, match=r"masking\.ratio must be in \[0, 1\), but got 2"):
            spec.resolve({"pretrain.masking.ratio": 2.0})
        with pytest.raises(PlatformError, match=r"no setting 'pretrain\.nonsense'"):
            spec.resolve({"pretrain.nonsense": 2.0})

    def test_settings_survive_yaml(self, sweep_file, tmp_path):
        spec = load_sweep(sweep_file)
        again = tmp_path / "again.yaml"
        again.write_text(format_yaml(spec.to_dict()))
        assert load_sweep(again).to_dict() == spec.to_dict()


class TestFingerprint:
    def test_a_trials_identity(self):
        config = TrialConfig(pretrain=create_config("asit", size="nano"))
        identity = {"seed": 0, "data_fingerprint": "d", "split": SplitSpec()}
        one = trial_fingerprint(config, **identity)
        assert one == trial_fingerprint(config, **identity)
        assert one != trial_fingerprint(config, **{**identity, "seed": 1})
        assert one != trial_fingerprint(config, **{**identity, "data_fingerprint": "e"})


def test_merging_goes_mapping_by_mapping():
    merged = merge({"a": {"b": 1, "c": 2}, "d": None}, {"a": {"b": None}, "d": {"e": 3}})
    assert merged == {"a": {"b": None, "c": 2}, "d": {"e": 3}}
    assert leaf_paths(merged) == ["a.b", "a.c", "d.e"]


def test_a_parameter_needs_its_place():
    with pytest.raises(KeyError, match=r"a\.c"):
        with_parameters({"a": {"b": 1}}, {"a.c": 1})
    with pytest.raises(KeyError):
        with_parameters({"a": None}, {"a.b": 1})


def test_a_base_without_any_searched_setting_lists_them_all(sweep_file):
    with pytest.raises(PlatformError) as caught:
        load_sweep(sweep_file, ["base=mae_ast/nano", "trial={}"])
    assert "pretrain.masking.ratio must be a setting of the trial" in str(caught.value)
