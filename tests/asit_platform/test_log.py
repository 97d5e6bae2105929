import logging

from asit_platform.log import PACKAGES, configure_logging


def test_our_records_go_to_stderr_once_and_the_root_logger_is_left_alone(capsys):
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    configure_logging()
    configure_logging()
    logging.getLogger("asit_platform.some.module").info("made %d shards", 3)
    logging.getLogger("asit_core").warning("collapsed")
    logging.getLogger("asit_core").debug("not shown")
    assert capsys.readouterr() == ("", "made 3 shards\nwarning: collapsed\n")
    assert (list(root.handlers), root.level) == (handlers, level)


def test_the_level_can_be_changed(capsys):
    configure_logging(logging.DEBUG)
    logging.getLogger(PACKAGES[0]).debug("shown")
    configure_logging()
    assert capsys.readouterr().err == "shown\n"
