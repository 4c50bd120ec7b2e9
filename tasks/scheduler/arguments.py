"""Checks the arguments of the `luigi` command before a task is created.

Luigi prints its whole usage, or a traceback, for an argument that it cannot use. Here each mistake is one line, and the
exit code is `ArgumentError.exit_code`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.parameter import ParameterException
from luigi.task_register import Register, TaskClassException

from models.errors import ArgumentError, SpamscoreError
from tasks.scheduler.failures import record_failure
from tasks.settings.checking import suggest_name

# The first type that a parameter has gives the text.
_EXPECTED = (
    (luigi.MonthParameter, "a month such as 2026-01"),
    (luigi.DateParameter, "a date such as 2026-01-31"),
    (luigi.DateHourParameter, "an hour such as 2026-01-31T05"),
    (luigi.DateMinuteParameter, "a minute such as 2026-01-31T0530"),
    (luigi.IntParameter, "an integer"),
    (luigi.FloatParameter, "a number"),
    (luigi.DictParameter, 'a JSON object such as {"model_version": 2}'),
)


class ArgumentParser(argparse.ArgumentParser):
    """Luigi's argument parser, with one line for each mistake. It also checks the values, which Luigi parses later."""

    def error(self, message: str) -> NoReturn:
        """Records the message as a failure, and ends the process."""
        if message.startswith("ambiguous option"):  # Luigi parses first without the options of the task
            message += suggest_name(message.split()[2], [option for task in _list_tasks() for option in _options(task)])
        record_failure(message, ArgumentError.exit_code)
        sys.exit(ArgumentError.exit_code)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses the arguments, and ends the process if an option or a value cannot be used."""
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            suggestion = suggest_name(unknown[0].partition("=")[0], [*self._option_string_actions])
            self.error(
                f"unrecognized arguments: {' '.join(unknown)}{suggestion}. "
                f"luigi --module pipeline {known.root_task} --help lists the options."
            )
        for option, parameter, text in self._given_values(known):
            if mistake := find_mistake(option, parameter, text):
                self.error(mistake)
        self._require_parameters(known)
        return known

    def check_task(self, name: str | None) -> None:
        """Ends the process if no task is given, or if there is no such task."""
        if name is None:
            self.error(f"no task is given. Tasks are {', '.join(_list_tasks())}.")
        if name not in Register.task_names():
            self.error(describe_unknown_task(name))

    def _given_values(self, known: argparse.Namespace) -> Iterator[tuple[str, Any, Any]]:
        """Yields option, parameter and text of each value on the command line."""
        options = {action.dest: action.option_strings[0] for action in self._actions if action.option_strings}
        for task, _, name, parameter in Register.get_all_params():
            for dest in {parameter._parser_global_dest(name, task), *([name] if task == known.root_task else ())}:
                if (text := getattr(known, dest, None)) is not None:
                    yield options[dest], parameter, text

    def _require_parameters(self, known: argparse.Namespace) -> None:
        task = Register.get_task_cls(known.root_task)
        for name, parameter in task.get_params():
            given = [getattr(known, dest) for dest in (name, parameter._parser_global_dest(name, known.root_task))]
            if given == [None, None] and not parameter.has_task_value(known.root_task, name):
                self.error(f"{known.root_task}: --{name.replace('_', '-')} is missing: {parameter.description}")


def find_mistake(option: str, parameter: luigi.Parameter[Any], text: Any) -> str | None:
    """Returns what is wrong with a value, or None. A flag has no text, but True."""
    if text == "":
        return f"{option}: the value is empty. Give a value, or leave the option out."
    try:
        parameter.normalize(parameter.parse(text))
    except SpamscoreError as error:
        return str(error)
    except TaskClassException:
        return f"{option}: {describe_unknown_task(text)}"
    except (ValueError, TypeError, AttributeError, OverflowError, ParameterException) as error:
        reason = next((f"expected {text}" for kind, text in _EXPECTED if isinstance(parameter, kind)), str(error))
        return f"{option} {text}: {reason}"
    return None


def describe_unknown_task(name: str) -> str:
    """Returns the message for a task that does not exist: the most similar name, and all names."""
    tasks = _list_tasks()
    return f"no task {name}{suggest_name(name, tasks)}. Tasks are {', '.join(tasks)}."


def _list_tasks() -> list[str]:
    """Returns the names of the tasks that a person can run, in alphabetical order."""
    tasks = [Register.get_task_cls(name) for name in Register.task_names()]
    return [
        task.task_family
        for task in tasks
        if not task.__module__.startswith(("luigi.", "tasks.stage", "tasks.sources"))
        and not issubclass(task, luigi.Config)
    ]


def _options(task: str) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name, _ in Register.get_task_cls(task).get_params()]


_build_luigi_parser = CmdlineParser._build_parser
_exit_with_help = CmdlineParser._possibly_exit_with_help


def install() -> None:
    """Makes Luigi check its arguments here."""
    CmdlineParser._build_parser = staticmethod(_build_parser)  # type: ignore[method-assign]
    CmdlineParser._possibly_exit_with_help = staticmethod(_exit_with_help_or_check_task)  # type: ignore[method-assign]


def _build_parser(root_task: str | None = None, help_all: bool = False) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _build_luigi_parser(root_task=root_task, help_all=help_all)
    parser.__class__ = ArgumentParser  # Luigi creates the parser itself
    return parser


def _exit_with_help_or_check_task(parser: ArgumentParser, known: argparse.Namespace) -> None:
    """Runs after Luigi has loaded the module and before it looks for the task."""
    _exit_with_help(parser, known)
    parser.check_task(known.root_task)
