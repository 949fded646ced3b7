"""What whoever reaches the service's API can do with it: nothing without the login, and with it run our flows in the roots.

Everything that takes a run is asked for at once and looked at afterwards: each run costs a process of its own.
"""

import contextlib
import re
import time
from pathlib import Path

import httpx
import psutil
import pytest
from tests.fault_archive import serve

DEADLINE_S = 180.0
pytestmark = pytest.mark.timeout(300)  # the first that asks for them waits for a service and for its runs
OURS = "chipmill.flows.build_dataset.build_dataset"
SHELL = "prefect.deployments.steps.run_shell_script"
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Caller:
    """Somebody with the login, a token against forged requests, and no client of Prefect."""

    def __init__(self, up):
        self.http = httpx.Client(base_url=up.url, auth=(up.user, up.password), timeout=60)
        token = self.made("GET", "/csrf-token?client=caller")["token"]
        self.http.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "caller"})

    def ask(self, method, path, body=None):
        """Send a request; one that meets a busy database is sent again, as every client of Prefect does."""
        end = time.monotonic() + 30
        while True:
            answer = self.http.request(method, path, json=body)
            if answer.status_code != 503 or time.monotonic() > end:
                return answer
            time.sleep(0.2)

    def made(self, method, path, body=None):
        answer = self.ask(method, path, body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def run(self, deployment, **body):
        return self.ask("POST", f"/deployments/{deployment}/create_flow_run", body)


def region(**changes):
    values = {
        "name": "stranger",
        "aoi": {"bbox": [14, 46, 15, 47]},
        "time": {"range": ["2019-01-01", "2020-01-01"]},
        "imagery": [{"name": "s2", "source": {"catalog": "c.json"}, "bands": {"red": "red"}}],
    }
    return values | changes


def asking(url, auth):
    source = {"name": "s2", "source": {"stac": f"{url}/stac"}, "bands": {"red": "red"}, "auth": auth}
    return region(imagery=[source])


@pytest.fixture(scope="module")
def caller(up):
    made = Caller(up)
    yield made
    made.http.close()


@pytest.fixture(scope="module")
def build(caller):
    """The deployment of build_dataset, as the service made it."""
    return caller.made("GET", "/deployments/name/build-dataset/cell")


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder beside the roots with a file that nobody may read; a command that ran would leave its mark here."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("far")) as server:
        server.search = lambda body: {"type": "FeatureCollection", "features": [], "links": []}
        yield server


@contextlib.contextmanager
def open_template(caller, command):
    """Give the pool `work` the template that the process worker of Prefect has, with a command in it."""
    before = caller.made("GET", "/work_pools/work")["base_job_template"]
    names = {"command": {"type": "string", "default": command}, "env": {"type": "object"}, "working_dir": {}}
    job = {name: f"{{{{ {name} }}}}" for name in names}
    template = {"job_configuration": job, "variables": {"type": "object", "properties": names}}
    caller.made("PATCH", "/work_pools/work", {"base_job_template": template})
    try:
        yield
    finally:
        caller.made("PATCH", "/work_pools/work", {"base_job_template": before})


@pytest.fixture(scope="module")
def ended(up, caller, build, outside, archive):
    """What was tried -> the run, when it has ended."""
    touch = f"touch {outside / 'mark'}"
    (up.root / "link").symlink_to(outside)
    away = {"parameters": {"region": region(output=str(outside / "out"))}}
    runs, strange = {}, {}

    def deployment(name, **more):
        values = {"name": name, "flow_id": build["flow_id"], "work_pool_name": "work", "entrypoint": OURS}
        strange[name] = caller.made("POST", "/deployments/", values | more)["id"]
        return strange[name]

    def go(name, identity, **body):
        answer = caller.run(identity, **body)
        assert answer.is_success, answer.text
        runs[name] = answer.json()["id"]

    with contextlib.ExitStack() as end:
        end.enter_context(open_template(caller, touch))
        command = {
            "command": touch,
            "env": {"CHIPMILL_ROOTS": "/", "PYTHONPATH": str(outside)},
            "working_dir": "/",
        }
        go("command", build["id"], job_variables=command, **away)
        go("file of another", deployment("file", entrypoint=f"{outside}/evil.py:flow"), **away)
        go("command in the name", deployment("name", entrypoint=f"{OURS};{touch}"), **away)
        go("shell", deployment("shell", pull_steps=[{SHELL: {"script": touch}}]), **away)
        variable = {"prefect.deployments.steps.set_working_directory": {"directory": "{{ $PATH }}"}}
        climbing = {"region": region(aoi={"path": "../" * 12 + str(outside / "secret.geojson")[1:]})}
        go("variable", deployment("variable", pull_steps=[variable]), parameters=climbing)
        linked = {"region": region(file="link/toy.yaml", aoi={"path": "secret.geojson"})}
        go("link", build["id"], parameters=linked)
        dataset = {
            "path": str(outside),
            "version": 1,
            "fingerprint": "f",
            "chips": 1,
            "shards": 1,
            "failed": 0,
        }
        mapping = caller.made("GET", "/deployments/name/predict-map/cell")["id"]
        go("dataset", mapping, parameters={"region": region(), "predict": {"model": "m"}, "dataset": dataset})
        auth = {"kind": "header", "name": "X-Key", "env": "PREFECT_API_AUTH_STRING"}
        free = deployment("free", enforce_parameter_schema=False)
        go("auth", free, parameters={"region": asking(archive.url, auth)})
        found = {name: _end(caller, run) for name, run in runs.items()}
        for identity in strange.values():
            caller.ask("DELETE", f"/deployments/{identity}")
    (up.root / "link").unlink()
    return found


def _end(caller, run):
    end = time.monotonic() + DEADLINE_S
    while (found := caller.made("GET", f"/flow_runs/{run}"))["state"]["type"] not in FINAL:
        assert time.monotonic() < end, found["state"]
        time.sleep(0.2)
    return found["state"]


OUTSIDE = "lies outside the directories of CHIPMILL_ROOTS"


@pytest.mark.parametrize(
    ("tried", "answer"),
    [
        ("command", f"output: .*{OUTSIDE}"),
        ("file of another", "is no flow of chipmill"),
        ("command in the name", "is no flow of chipmill"),
        ("shell", "the pull step .*run_shell_script"),
        ("variable", f"aoi: .*{OUTSIDE}|set_working_directory"),
        ("link", f"file: .*{OUTSIDE}"),
        ("dataset", f"dataset.path: .*{OUTSIDE}"),
        ("auth", "auth.env"),
    ],
)
def test_what_the_login_does_not_allow_ends_in_a_sentence(ended, tried, answer):
    state = ended[tried]
    assert state["type"] in ("FAILED", "CRASHED")
    assert re.search(answer, state["message"]), state["message"]
    assert "PREFECT_API_AUTH_STRING=" not in state["message"]


def test_nothing_of_it_had_an_effect(ended, outside, up, archive):
    assert sorted(path.name for path in outside.iterdir()) == ["secret.geojson"]
    assert archive.requests == [], "a variable of another name was sent"
    assert not list(up.root.rglob("stranger")), "nothing was written"


@pytest.mark.parametrize(
    "variables", [{"command": "id"}, {"env": {"A": "b"}}, {"working_dir": "/"}, {"image": "x"}, {"name": "x"}]
)
def test_a_run_takes_no_job_variables(caller, build, variables):
    refused = caller.run(build["id"], parameters={"region": region()}, job_variables=variables)
    assert refused.status_code == 422
    assert next(iter(variables)) in refused.text


@pytest.mark.parametrize(
    "env", ["PREFECT_API_AUTH_STRING", "HOME", "CHIPMILL_SECRET_", "CHIPMILL_ROOTS", "PATH\n"]
)
def test_no_variable_but_a_secret_of_ours_may_be_named(caller, build, env):
    auth = {"kind": "header", "name": "X-Key", "env": env}
    refused = caller.run(build["id"], parameters={"region": asking("http://127.0.0.1:9", auth)})
    assert refused.status_code == 409
    assert "region.imagery[0].auth.env" in refused.text


def test_a_secret_is_no_parameter_of_a_run_and_of_a_deployment(caller, build):
    literal = region(
        imagery=[{"name": "s2", "source": {"stac": "https://u:pw@a.example"}, "bands": {"red": "red"}}]
    )
    for refused in (
        caller.run(build["id"], parameters={"region": literal}),
        caller.ask("PATCH", f"/deployments/{build['id']}", {"parameters": {"region": literal}}),
    ):
        assert refused.status_code == 409
        assert "region.imagery[0].source.stac" in refused.text


def _routes(up, caller):
    described = caller.http.get(f"{up.ui}/openapi.json")
    paths = described.json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_without_the_login_every_route_is_closed(up, caller):
    routes = _routes(up, caller)
    assert len(routes) > 100
    answers = {}
    with httpx.Client(timeout=30) as nobody:
        for method, path in routes:
            answers[method, path] = nobody.request(method, up.url + re.sub("[{}]", "", path)).status_code
    # a change is refused for its missing token even before anybody asks for the login
    opened = {path for (method, path), code in answers.items() if code != (401 if method == "GET" else 403)}
    assert opened == {"/health", "/ready"}


@pytest.mark.parametrize("login", [("chipmill", ""), ("chipmill", "guess"), ("", ""), ("admin", "pw")])
def test_a_wrong_login_is_none(up, login):
    assert httpx.get(f"{up.url}/admin/version", auth=login).status_code == 401


def test_a_page_of_another_origin_can_neither_ask_nor_read(up):
    """A browser sends the login along where its user gave it; it cannot know the token."""
    login = {"auth": (up.user, up.password), "timeout": 30}
    assert httpx.post(f"{up.url}/flow_runs/filter", json={}, **login).status_code == 403
    forged = {"Prefect-Csrf-Token": "guess", "Prefect-Csrf-Client": "caller"}
    assert httpx.post(f"{up.url}/flow_runs/filter", json={}, headers=forged, **login).status_code == 403
    foreign = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for method in ("GET", "OPTIONS"):
        answer = httpx.request(method, f"{up.url}/csrf-token?client=x", headers=foreign, **login)
        assert answer.headers.get("Access-Control-Allow-Origin") is None
    own = httpx.get(f"{up.url}/health", headers={"Origin": up.ui})
    assert own.headers["Access-Control-Allow-Origin"] == up.ui


def test_the_service_listens_on_the_loopback_alone_and_its_password_is_in_no_list(up):
    listening = []
    for process in up.family():
        with contextlib.suppress(psutil.NoSuchProcess):
            listening += [one.laddr.ip for one in process.net_connections("inet") if one.status == "LISTEN"]
            assert up.password not in " ".join(process.cmdline())
    assert listening
    assert set(listening) == {"127.0.0.1"}
    assert (Path(up.state) / "up.json").stat().st_mode & 0o777 == 0o600
