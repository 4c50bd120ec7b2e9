"""Tests of security: no password leaks, no access for other users, no code or SQL from untrusted input is run."""

from __future__ import annotations

import ast
import contextlib
import csv
import html
import json
import os
import re
import stat
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from chain import DATE, SMALL, CommandResult, Settings, environment, luigi, luigi_cold, merge_settings, write_settings
from eventually import eventually
from luigid import Luigid
from sqlalchemy.engine import URL, Engine

from models.errors import InputError
from tasks.database.connection import read_transaction, write_transaction
from tasks.database.writer import insert_rows
from tasks.settings.masking import mask_password
from tasks.settings.storage import DatabaseSettings
from tasks.sources.queries import QuerySource, read_query

ROOT = Path(__file__).resolve().parents[1]
SPAMSCORE = Path(sys.executable).with_name("spamscore")
MODULES = sorted(path for package in ("pipeline", "tasks", "models") for path in (ROOT / package).rglob("*.py"))


# Passwords


class LeakError(AssertionError):
    """A password was found; the message has the location, but not the password."""


def list_encodings(password: str) -> set[bytes]:
    """Returns the encodings in which a password can be part of a text."""
    forms = {
        password, repr(password)[1:-1], json.dumps(password)[1:-1], html.escape(password),
        urllib.parse.quote(password), urllib.parse.quote(password, safe=""), urllib.parse.quote_plus(password),
        urllib.parse.quote(password, safe=" +"),
    }  # fmt: skip
    # If an unquoted / or @ splits the password, each part of it would still be a leak.
    parts = {part for form in forms for part in re.split(r"[/@]|%2F|%40", form) if len(part) > 7}
    return {form.encode() for form in forms | parts}


def require_absent(passwords: tuple[str, ...], location: str, content: bytes | str) -> None:
    text = content.encode() if isinstance(content, str) else content
    for number, password in enumerate(passwords):
        if any(form in text for form in list_encodings(password)):
            raise LeakError(f"password {number} is in {location}")


@pytest.mark.parametrize(
    "form",
    [
        "p/w:one'two@3",
        "p%2Fw%3Aone%27two%403",
        "p/w%3Aone%27two%403",
        "p/w:one&#x27;two@3",
        "password 'w:one'two' wrong",
    ],
)
def test_the_search_finds_a_password_in_every_encoding(form: str) -> None:
    with pytest.raises(LeakError):
        require_absent(("p/w:one'two@3",), "here", f"before {form} after")


class CommandLines(threading.Thread):
    """Collects the command lines of all processes of the machine while its context is open."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.2):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.seen.add(path.read_bytes())

    def __enter__(self) -> CommandLines:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.join()


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    before = os.umask(0o022)
    yield lambda mask: (os.umask(mask), None)[1]
    os.umask(before)


def spamscore(folder: Path, *arguments: str, **variables: str) -> CommandResult:
    """Runs the `spamscore` command."""
    done = subprocess.run(
        [SPAMSCORE, *arguments], cwd=folder, env=environment(**variables), check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return CommandResult(done.returncode, done.stdout)


def render(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def escape_for_file(url: str) -> str:
    """Escapes a URL for luigi.cfg."""
    return url.replace("%", "%%")


# No other test has them: other workers' processes are in the process list too.
SCORES_PASSWORD, CORPUS_PASSWORD = "scores-Wp9/with:signs@in it", "corpus-Yk4/x@two:$\\"
MESSAGES_PASSWORD = "messages-Zq7/x@one:é'\""


@pytest.fixture
def database_urls(postgresql_url: str) -> Iterator[tuple[URL, URL, URL]]:
    """The URLs of the scores, the corpus and the messages: three users with different passwords."""
    server = sa.make_url(postgresql_url)
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with open(ROOT / "pipeline/sample/corpus.csv", encoding="utf-8", newline="") as file:
        labelled = [{"label": row["label"], "text": row["text"]} for row in csv.DictReader(file)]
    table = sa.Table("labelled", sa.MetaData(), sa.Column("label", sa.Text), sa.Column("text", sa.Text))
    with engine.connect() as connection:
        for role in ("scores_writer", "corpus_reader", "messages_reader"):
            connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN SUPERUSER")
        table.create(connection)
        connection.execute(sa.insert(table), labelled)
    yield (
        server.set(username="scores_writer", password=SCORES_PASSWORD),
        server.set(username="corpus_reader", password=CORPUS_PASSWORD),
        server.set(username="messages_reader", password=MESSAGES_PASSWORD),
    )
    with engine.connect() as connection:
        for role in ("scores_writer", "corpus_reader", "messages_reader"):
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")
    engine.dispose()


MESSAGES = (
    """SELECT id AS message_id, text FROM (VALUES ('<b>1</b>', 'WIN a prize now'), ('2', 'see you')) AS m (id, text)"""
)
VERBOSE: Settings = {"core": {"log_level": "DEBUG", "local_scheduler": "false"}, "console": {"log_level": "DEBUG"}}


def test_no_password_appears_outside_the_setting_that_has_it(
    tmp_path: Path, database_urls: tuple[URL, URL, URL], umask: Callable[[int], None]
) -> None:
    scores, corpus, messages = map(render, database_urls)
    passwords = (SCORES_PASSWORD, CORPUS_PASSWORD, MESSAGES_PASSWORD)
    folder = tmp_path / "night"
    folder.mkdir()
    sources: Settings = {
        "corpus": {"source": "sql", "query": "SELECT label, text FROM labelled"},
        "messages": {"source": "sql", "query": MESSAGES},
    }
    in_settings: Settings = {
        "database": {"url": escape_for_file(scores)}, "corpus": {"url": escape_for_file(corpus)},
        "messages": {"url": escape_for_file(messages)},
    }  # fmt: skip
    variables = {
        "SPAMSCORE_DATABASE_URL": scores, "SPAMSCORE_CORPUS_URL": corpus, "SPAMSCORE_MESSAGES_URL": messages
    }  # fmt: skip
    outputs: dict[str, str] = {}
    with Luigid(tmp_path / "luigid") as luigid, CommandLines() as lines:
        verbose = merge_settings(VERBOSE, {"core": {"default_scheduler_url": f"http://127.0.0.1:{luigid.port}"}})
        for source, settings, extra in (("environment", {}, variables), ("luigi.cfg", in_settings, {})):
            write_settings(folder, merge_settings(SMALL, sources, verbose, settings))
            # The first run uses the corpus URL to train; the second run uses the messages URL for another date.
            date = DATE if source == "environment" else "2026-02-01"
            done = luigi_cold(folder, "ScoreBatch", "--date", date, **extra)  # its arguments are in the process list
            assert done.code == 0, source
            outputs[f"luigi, {source}"] = done.output
            for command in ("config", "config --json database", f"summary {date}"):
                answer = spamscore(folder, *command.split(), **extra)
                assert answer.code == 0, (source, command, answer.output)
                outputs[f"spamscore {command}, {source}"] = answer.output
            assert "***" in outputs[f"spamscore config, {source}"]
        # luigid can show the end of the run after the command has ended.
        eventually(lambda: luigid.find_task("ScoreBatch")["status"], lambda status: status == "DONE")
        outputs["the visualizer"] = luigid.dump_api()
    assert "ScoreBatch" in outputs["the visualizer"]
    assert any(b"ScoreBatch" in line for line in lines.seen)
    for location, text in outputs.items():
        require_absent(passwords, location, text)
    for line in lines.seen:
        require_absent(passwords, "the process list", line)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path != folder / "luigi.cfg"]
    assert {"log", "state.pickle", "report.html", "manifest.json"} <= {path.name for path in files}
    for path in files:
        require_absent(passwords, str(path.relative_to(tmp_path)), path.read_bytes())
    require_modes(tmp_path / "night", 0o022)


BROKEN: dict[str, Callable[[URL], str]] = {
    "server down": lambda url: render(url.set(host="127.0.0.1", port=1, query={})),
    "password wrong": lambda url: render(url.set(password=MESSAGES_PASSWORD)),
    "host unknown": lambda url: render(url.set(host="no-such-host.invalid", query={})),
    "database missing": lambda url: render(url.set(database="no_such_database")),
    "port malformed": lambda url: render(url.set(host="host", query={})).replace("@host", "@host:port"),
    "password not quoted": lambda _: f"postgresql://spamscore:{MESSAGES_PASSWORD}@host/scores",
    "driver unknown": lambda url: render(url.set(drivername="nosuch")),
    "password in the query": lambda url: f"postgresql://127.0.0.1:1/scores?password={urllib.parse.quote_plus(str(url.password))}",
    "not a URL": lambda url: str(url.password),
}  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "section"),
    [
        *((fault, "database") for fault in BROKEN),
        *((fault, "messages") for fault in ("server down", "password wrong", "password not quoted")),
    ],
)
def test_a_url_that_fails_is_reported_without_its_password(
    tmp_path: Path, postgresql_url: str, fault: str, section: str
) -> None:
    url = sa.make_url(postgresql_url)
    passwords = (str(url.password), MESSAGES_PASSWORD)
    source: Settings = {"messages": {"source": "sql", "query": MESSAGES}} if section == "messages" else {}
    broken: Settings = {section: {"url": escape_for_file(BROKEN[fault](url)).replace("$", "$$")}}
    write_settings(tmp_path, merge_settings(VERBOSE, {"core": {"local_scheduler": "true"}}, source, broken))
    stage = "ExtractMessages" if section == "messages" else "ScoreBatch"
    answers = [luigi(tmp_path, stage, "--date", DATE)]
    if section == "database":
        answers.append(spamscore(tmp_path, "batches"))
    for answer in answers:
        assert answer.code != 0, answer.output
        assert f"SPAMSCORE_{section.upper()}_URL" in answer.output, answer.output
        require_absent(passwords, fault, answer.output)


@pytest.mark.parametrize(
    "query", ["password=s3cr3t", "sslpassword=s3cr3t", "token=s3cr3t", "api_key=s3cr3t", "X-Amz-Signature=s3cr3t"]
)
def test_a_secret_in_the_query_of_a_url_is_masked(query: str) -> None:
    assert mask_password(f"postgresql://host/scores?{query}") == f"postgresql://host/scores?{query.split('=')[0]}=***"
    assert mask_password(f"https://host/file.zip?{query}") == f"https://host/file.zip?{query.split('=')[0]}=***"


# Files


def require_modes(folder: Path, mask: int) -> None:
    """Checks that files and folders have exactly the permissions of the umask, and that no file is executable."""
    paths = list(folder.rglob("*"))
    assert any(path.name == "saved_model.pb" for path in paths)
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in paths}
    expected = {path: (0o777 if path.is_dir() else 0o666) & ~mask for path in paths}
    assert {str(path): oct(mode) for path, mode in modes.items() if mode != expected[path]} == {}


def test_a_run_with_a_strict_umask_writes_no_file_that_other_users_can_read(
    tmp_path: Path, umask: Callable[[int], None]
) -> None:
    umask(0o077)
    folder = tmp_path / "night"
    folder.mkdir()
    write_settings(folder, SMALL)
    done = luigi(folder, "ScoreBatch", "--date", DATE)
    assert done.code == 0, done.output
    assert (folder / "spamscore.db").is_file()
    require_modes(folder, 0o077)


# Code


LOADERS_OF_CODE = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "yaml",
    "jsonpickle",
}
# Functions that run data as code, or run a command from a text.
BUILT_IN = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_CALLS = {
    "read_pickle", "to_pickle", "load_model", "enable_unsafe_deserialization",
    "model_from_json", "model_from_config", "deserialize_keras_object", "system", "popen", "Lambda", "py_function",
    "numpy_function", "unpackb", "extractall", "mktemp", "Markup",
}  # fmt: skip


def find_unsafe_code(code: str) -> list[str]:
    """Finds imports and calls in a module that could run or unpickle untrusted data."""
    findings = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            findings += [name for name in names if name.split(".")[0] in LOADERS_OF_CODE | {"subprocess"}]
        elif isinstance(node, ast.Call):
            findings += _find_unsafe_call(node)
    return findings


def _find_unsafe_call(node: ast.Call) -> list[str]:
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    faults = [name] if name in FORBIDDEN_CALLS or (not owner and name in BUILT_IN) else []
    faults += [f"{name}({key})" for key, value in (("allow_pickle", "True"), ("shell", "True"), ("safe_mode", "False"),
                                                   ("verify", "False")) if keywords.get(key) == value]  # fmt: skip
    if f"{owner}.{name}" == "np.load" and keywords.get("allow_pickle") != "False":
        faults.append("np.load without allow_pickle=False")
    if name == "Environment" and keywords.get("autoescape", "False") == "False":
        faults.append("Environment without autoescape")
    return faults


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_unpickles_or_runs_what_it_reads(path: Path) -> None:
    # The model card is Markdown: a filter of its own escapes values, which its tests check. `spamscore watch` starts
    # luigid and the requested run, with lists of arguments. PySpark starts the JVM, and its process is waited for.
    allowed = {
        "models/reports/model_card.py": ["Environment without autoescape"],
        "pipeline/watch/luigid.py": ["subprocess"],
        "tasks/scoring/spark/context.py": ["subprocess"],
    }
    assert find_unsafe_code(path.read_text(encoding="utf-8")) == allowed.get(str(path.relative_to(ROOT)), [])


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from joblib import load", "import os; os.system(x)", "np.load(path)",
        "np.load(path, allow_pickle=True)", "pd.read_pickle(path)", "keras.models.load_model(path)", "eval(text)",
        "import subprocess", "jinja2.Environment()", "requests.get(url, verify=False)", "archive.extractall(folder)",
    ],
)  # fmt: skip
def test_the_search_finds_unsafe_code(code: str) -> None:
    assert find_unsafe_code(code)


# Databases


HOSTILE = [
    "'); DROP TABLE spam_scores; --", '"; DROP TABLE spam_scores; --', "`; DROP TABLE spam_scores; --", "\\",
    "%s", "%(x)s", ":start", "?", "$1", "{0}", "\\.", "\u2028", "<script>alert(1)</script>",
]  # fmt: skip


@pytest.mark.parametrize("name", ['label"; drop table inbox; --', "te`xt", "te'xt", "select", "te xt", "te[x]t", "té"])
def test_a_hostile_column_name_is_quoted(database_url: str, name: str) -> None:
    engine = sa.create_engine(database_url)
    table = sa.Table("inbox", sa.MetaData(), sa.Column("id", sa.Integer), sa.Column(name, sa.String(20)))
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(sa.insert(table), [{"id": 1, name: "a"}])
    source = QuerySource(
        "messages", "SELECT * FROM inbox", {"id_column": "id", "text_column": name}, DatabaseSettings(database_url)
    )
    assert [tuple(row.values.values()) for row in read_query(source)] == [("1", "a")]
    missing = QuerySource("messages", "SELECT id FROM inbox", source.columns, source.database)
    with pytest.raises(InputError, match="column"):
        list(read_query(missing))
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 1
    engine.dispose()


def test_hostile_names_and_values_are_stored_unchanged(engine: Engine) -> None:
    columns = [sa.Column(f"{number} {text[:40]}", sa.String(80)) for number, text in enumerate(HOSTILE)]
    columns = [column for column in columns if "%" not in column.name and ":" not in column.name]
    table = sa.Table(
        'odd "name"; drop table `x', sa.MetaData(), *columns, mysql_charset="utf8mb4", mariadb_charset="utf8mb4"
    )
    rows = [tuple(HOSTILE[(index + shift) % len(HOSTILE)] for index in range(len(columns))) for shift in range(3)]
    with write_transaction(engine) as connection:
        table.create(connection)
        values = {column.name: [row[index] for row in rows] for index, column in enumerate(columns)}
        insert_rows(connection, table, values)
    with read_transaction(engine) as connection:
        assert sorted(map(tuple, connection.execute(sa.select(table)))) == sorted(rows)
        assert sa.inspect(connection).has_table("spam_scores")
