"""What strangers and neighbours must not get: passwords, a way into the database or the page, code that runs."""

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
from luigid import Luigid
from sqlalchemy.engine import URL, Engine

from models.errors import InputError
from tasks.database.connection import masked, reading, writing
from tasks.database.writer import insert_rows
from tasks.settings.storage import DatabaseSettings
from tasks.sources.queries import QuerySource, read_query

ROOT = Path(__file__).resolve().parents[1]
SPAMSCORE = Path(sys.executable).with_name("spamscore")
MODULES = sorted(path for package in ("pipeline", "tasks", "models") for path in (ROOT / package).rglob("*.py"))


# Passwords


class LeakError(AssertionError):
    """Names where a password was found, without showing it."""


def written_forms(password: str) -> set[bytes]:
    """The ways in which a password could stand in a text."""
    forms = {
        password, repr(password)[1:-1], json.dumps(password)[1:-1], html.escape(password),
        urllib.parse.quote(password), urllib.parse.quote(password, safe=""), urllib.parse.quote_plus(password),
        urllib.parse.quote(password, safe=" +"),
    }  # fmt: skip
    # Cut at a sign that somebody forgot to quote, each half would still give it away.
    halves = {half for form in forms for half in re.split(r"[/@]|%2F|%40", form) if len(half) > 7}
    return {form.encode() for form in forms | halves}


def require_absent(passwords: tuple[str, ...], where: str, content: bytes | str) -> None:
    text = content.encode() if isinstance(content, str) else content
    for number, password in enumerate(passwords):
        if any(form in text for form in written_forms(password)):
            raise LeakError(f"password {number} is in {where}")


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
def test_the_search_finds_a_password_however_it_is_written(form: str) -> None:
    with pytest.raises(LeakError):
        require_absent(("p/w:one'two@3",), "here", f"said: {form} and more")


class CommandLines(threading.Thread):
    """Collects the command lines of all processes of the machine until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.2):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.seen.add(path.read_bytes())

    def __enter__(self) -> CommandLines:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    before = os.umask(0o022)
    yield lambda mask: (os.umask(mask), None)[1]
    os.umask(before)


def spamscore(folder: Path, *arguments: str, **variables: str) -> CommandResult:
    done = subprocess.run(
        [SPAMSCORE, *arguments], cwd=folder, env=environment(**variables), check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return CommandResult(done.returncode, done.stdout)


def address(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def in_file(url: str) -> str:
    """An address as luigi.cfg must have it."""
    return url.replace("%", "%%")


MESSAGES_PASSWORD, CORPUS_PASSWORD = "messages-Zq7/x@one:é'\"", "corpus-Yk4/x@two:$\\"


@pytest.fixture
def asked_and_written(postgresql_url: str) -> Iterator[tuple[URL, URL, URL]]:
    """The addresses of the scores, the corpus and the messages: three users, each with a password of its own."""
    scores = sa.make_url(postgresql_url)
    engine = sa.create_engine(scores, isolation_level="AUTOCOMMIT")
    with open(ROOT / "pipeline/sample/corpus.csv", encoding="utf-8", newline="") as file:
        labelled = [{"label": row["label"], "text": row["text"]} for row in csv.DictReader(file)]
    table = sa.Table("labelled", sa.MetaData(), sa.Column("label", sa.Text), sa.Column("text", sa.Text))
    with engine.connect() as connection:
        for role in ("corpus_reader", "messages_reader"):
            connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN SUPERUSER")
        table.create(connection)
        connection.execute(sa.insert(table), labelled)
    yield (
        scores,
        scores.set(username="corpus_reader", password=CORPUS_PASSWORD),
        scores.set(username="messages_reader", password=MESSAGES_PASSWORD),
    )
    with engine.connect() as connection:
        for role in ("corpus_reader", "messages_reader"):
            connection.exec_driver_sql(f"DROP ROLE {role}")
    engine.dispose()


MESSAGES = (
    """SELECT id AS message_id, text FROM (VALUES ('<b>1</b>', 'WIN a prize now'), ('2', 'see you')) AS m (id, text)"""
)
VERBOSE: Settings = {"core": {"log_level": "DEBUG", "local_scheduler": "false"}, "console": {"log_level": "DEBUG"}}


def test_no_password_leaves_the_place_it_was_given_in(
    tmp_path: Path, asked_and_written: tuple[URL, URL, URL], umask: Callable[[int], None]
) -> None:
    scores, corpus, messages = map(address, asked_and_written)
    passwords = (str(asked_and_written[0].password), CORPUS_PASSWORD, MESSAGES_PASSWORD)
    folder = tmp_path / "night"
    folder.mkdir()
    sources: Settings = {
        "corpus": {"source": "sql", "query": "SELECT label, text FROM labelled"},
        "messages": {"source": "sql", "query": MESSAGES},
    }
    in_settings: Settings = {
        "database": {"url": in_file(scores)}, "corpus": {"url": in_file(corpus)}, "messages": {"url": in_file(messages)}
    }  # fmt: skip
    variables = {
        "SPAMSCORE_DATABASE_URL": scores, "SPAMSCORE_CORPUS_URL": corpus, "SPAMSCORE_MESSAGES_URL": messages
    }  # fmt: skip
    said: dict[str, str] = {}
    with Luigid(tmp_path / "luigid") as luigid, CommandLines() as lines:
        verbose = merge_settings(VERBOSE, {"core": {"default_scheduler_url": f"http://127.0.0.1:{luigid.port}"}})
        for place, settings, given in (("environment", {}, variables), ("luigi.cfg", in_settings, {})):
            write_settings(folder, merge_settings(SMALL, sources, verbose, settings))
            # The first trains with what the environment says, the second reads another night's messages.
            date = DATE if place == "environment" else "2026-02-01"
            done = luigi_cold(folder, "ScoreBatch", "--date", date, **given)  # with its words in the process list
            assert done.code == 0, place
            said[f"luigi, {place}"] = done.output
            for command in ("config", "config --json database", f"summary {date}"):
                answer = spamscore(folder, *command.split(), **given)
                assert answer.code == 0, (place, command, answer.output)
                said[f"spamscore {command}, {place}"] = answer.output
            assert "***" in said[f"spamscore config, {place}"]
        said["the visualizer"] = luigid.dump_api()
    assert "ScoreBatch" in said["the visualizer"]
    assert any(b"ScoreBatch" in line for line in lines.seen)
    for where, text in said.items():
        require_absent(passwords, where, text)
    for line in lines.seen:
        require_absent(passwords, "the process list", line)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path != folder / "luigi.cfg"]
    assert {"log", "state.pickle", "report.html", "manifest.json"} <= {path.name for path in left}
    for path in left:
        require_absent(passwords, str(path.relative_to(tmp_path)), path.read_bytes())
    require_modes(tmp_path / "night", 0o022)


BROKEN: dict[str, Callable[[URL], str]] = {
    "server down": lambda url: address(url.set(host="127.0.0.1", port=1, query={})),
    "password wrong": lambda url: address(url.set(password=MESSAGES_PASSWORD)),
    "host unknown": lambda url: address(url.set(host="no-such-host.invalid", query={})),
    "database missing": lambda url: address(url.set(database="no_such_database")),
    "port malformed": lambda url: address(url.set(host="host", query={})).replace("@host", "@host:port"),
    "sign not quoted": lambda _: f"postgresql://spamscore:{MESSAGES_PASSWORD}@host/scores",
    "driver unknown": lambda url: address(url.set(drivername="nosuch")),
    "in the query": lambda url: f"postgresql://127.0.0.1:1/scores?password={urllib.parse.quote_plus(str(url.password))}",
    "no address": lambda url: str(url.password),
}  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "section"),
    [
        *((fault, "database") for fault in BROKEN),
        *((fault, "messages") for fault in ("server down", "password wrong", "sign not quoted")),
    ],
)
def test_an_address_that_fails_is_told_without_its_password(
    tmp_path: Path, postgresql_url: str, fault: str, section: str
) -> None:
    url = sa.make_url(postgresql_url)
    passwords = (str(url.password), MESSAGES_PASSWORD)
    source: Settings = {"messages": {"source": "sql", "query": MESSAGES}} if section == "messages" else {}
    broken: Settings = {section: {"url": in_file(BROKEN[fault](url)).replace("$", "$$")}}
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
def test_a_secret_in_the_query_of_an_address_is_masked(query: str) -> None:
    assert masked(f"postgresql://host/scores?{query}") == f"postgresql://host/scores?{query.split('=')[0]}=***"
    assert masked(f"https://host/file.zip?{query}") == f"https://host/file.zip?{query.split('=')[0]}=***"


# Files


def require_modes(folder: Path, mask: int) -> None:
    """Files and folders are as open as the umask says, no more and no less; nothing can be executed."""
    paths = list(folder.rglob("*"))
    assert any(path.name == "saved_model.pb" for path in paths)
    found = {path: stat.S_IMODE(path.lstat().st_mode) for path in paths}
    expected = {path: (0o777 if path.is_dir() else 0o666) & ~mask for path in paths}
    assert {str(path): oct(mode) for path, mode in found.items() if mode != expected[path]} == {}


def test_a_run_under_a_strict_umask_leaves_nothing_that_others_can_read(
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
# What makes code of data, or starts what a text says.
BUILT_IN = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_CALLS = {
    "read_pickle", "to_pickle", "load_model", "enable_unsafe_deserialization",
    "model_from_json", "model_from_config", "deserialize_keras_object", "system", "popen", "Lambda", "py_function",
    "numpy_function", "unpackb", "extractall", "mktemp", "Markup",
}  # fmt: skip


def faults_of(code: str) -> list[str]:
    """What in a module could run or unpickle what it reads."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [name for name in names if name.split(".")[0] in LOADERS_OF_CODE | {"subprocess"}]
        elif isinstance(node, ast.Call):
            found += _faults_of_call(node)
    return found


def _faults_of_call(node: ast.Call) -> list[str]:
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
    given = {one.arg: ast.unparse(one.value) for one in node.keywords}
    faults = [name] if name in FORBIDDEN_CALLS or (not owner and name in BUILT_IN) else []
    faults += [f"{name}({key})" for key, value in (("allow_pickle", "True"), ("shell", "True"), ("safe_mode", "False"),
                                                   ("verify", "False")) if given.get(key) == value]  # fmt: skip
    if f"{owner}.{name}" == "np.load" and given.get("allow_pickle") != "False":
        faults.append("np.load without allow_pickle=False")
    if name == "Environment" and given.get("autoescape", "False") == "False":
        faults.append("Environment without autoescape")
    return faults


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_unpickles_evaluates_or_starts_what_it_reads(path: Path) -> None:
    # The model card is Markdown: its own filter escapes, which its tests hold it to. `spamscore watch` starts luigid
    # and the run that it was asked for, by lists of arguments.
    allowed = {"model_card.py": ["Environment without autoescape"], "watching.py": ["subprocess"]}
    assert faults_of(path.read_text(encoding="utf-8")) == allowed.get(path.name, [])


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from joblib import load", "import os; os.system(x)", "np.load(path)",
        "np.load(path, allow_pickle=True)", "pd.read_pickle(path)", "keras.models.load_model(path)", "eval(text)",
        "import subprocess", "jinja2.Environment()", "requests.get(url, verify=False)", "archive.extractall(folder)",
    ],
)  # fmt: skip
def test_the_search_knows_what_it_looks_for(code: str) -> None:
    assert faults_of(code)


# Databases


HOSTILE = [
    "'); DROP TABLE spam_scores; --", '"; DROP TABLE spam_scores; --', "`; DROP TABLE spam_scores; --", "\\",
    "%s", "%(x)s", ":start", "?", "$1", "{0}", "\\.", "\u2028", "<script>alert(1)</script>",
]  # fmt: skip


@pytest.mark.parametrize("name", ['label"; drop table inbox; --', "te`xt", "te'xt", "select", "te xt", "te[x]t", "té"])
def test_a_hostile_column_name_is_a_name(database_url: str, name: str) -> None:
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


def test_hostile_names_and_values_go_into_a_table_as_they_are(engine: Engine) -> None:
    columns = [sa.Column(f"{number} {text[:40]}", sa.String(80)) for number, text in enumerate(HOSTILE)]
    columns = [one for one in columns if "%" not in one.name and ":" not in one.name]
    table = sa.Table(
        'odd "name"; drop table `x', sa.MetaData(), *columns, mysql_charset="utf8mb4", mariadb_charset="utf8mb4"
    )
    rows = [tuple(HOSTILE[(place + shift) % len(HOSTILE)] for place in range(len(columns))) for shift in range(3)]
    with writing(engine) as connection:
        table.create(connection)
        insert_rows(connection, table, {one.name: [row[place] for row in rows] for place, one in enumerate(columns)})
    with reading(engine) as connection:
        assert sorted(map(tuple, connection.execute(sa.select(table)))) == sorted(rows)
        assert sa.inspect(connection).has_table("spam_scores")
