"""Prefect's own screen in the system's Chromium, on a real service: a failed run is understood, retried and run anew."""

import json
import re
from pathlib import Path

import pytest
import yaml

CHROMIUM = Path("/usr/bin/chromium")
DEADLINE_MS = 120_000
"""Of one small dataset by a worker, on a machine that others use as well."""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def region(up):
    """A small region below the root of the service, as a parameter; its files are there, nothing is built."""
    from chipmill.demo.run import prepare

    files = prepare(up.root / "browser", "small", 8, lambda _: None)
    text = files.region.read_text()
    assert "key_class: crop" in text
    return {**json.loads(json.dumps(yaml.safe_load(text), default=str)), "file": "browser/region.yaml"}


@pytest.fixture
def tab(up):
    """A page of a browser that is logged in."""
    sync_api = pytest.importorskip("playwright.sync_api")
    sync_api.expect.set_options(timeout=15_000)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
        page.goto(f"{up.ui}/v2/login")
        page.fill("input[type=password]", up.auth)
        page.keyboard.press("Enter")
        page.wait_for_url("**/dashboard**")
        yield page
        browser.close()


def start(up, region):
    """Start a run of build-dataset/cell by the API."""
    with up.client() as client:
        deployment = client.read_deployment_by_name("build-dataset/cell")
        return client.create_flow_run_from_deployment(deployment.id, parameters={"region": region}).id


def open_run(up, tab, run, *states):
    """Open the page of a run and wait until one of the states stands at its head."""
    from playwright.sync_api import expect

    tab.goto(f"{up.ui}/v2/runs/flow-run/{run}")
    head = tab.get_by_text(re.compile(f"^({'|'.join(states)})$")).first
    expect(head).to_be_visible(timeout=DEADLINE_MS)
    return head.inner_text()


def choose(tab, item):
    """Choose from the menu of a run."""
    tab.get_by_role("button", name="Open menu").click()
    tab.get_by_role("menuitem", name=item).click()


def field(tab, title):
    """The input of a form's field."""
    label = tab.locator("label", has_text=re.compile(rf"^{title}( \(Optional\))?$"))
    group = tab.locator("div.group", has=label).last
    return group.locator("textarea, input").first


def composites(up):
    """Inode and time of each composite and gridded layer: one that is made again has others."""
    files = (up.root / "browser").glob("regions/**/*.tif")
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def version(up):
    (current,) = (up.root / "browser").glob("regions/demo/*/CURRENT")
    return current.parent / "versions" / current.read_text().strip()


@pytest.mark.timeout(400)
def test_a_failed_run_is_understood_and_retried_in_the_browser(up, region, tab):
    from playwright.sync_api import expect

    (asset,) = (up.root / "browser").glob("world/catalog/*/S2B_DEMO_20190216_0/nir.tif")
    hidden = asset.rename(asset.with_suffix(".hidden"))
    run = start(up, region)
    assert open_run(up, tab, run, "Failed", "Completed") == "Failed"

    expect(tab.locator("canvas").first).to_be_visible()  # the graph of the run
    tab.get_by_role("tab", name="Artifacts").click()
    expect(tab.get_by_text("failed-composite-tiles")).to_be_visible()
    expect(tab.get_by_text("progress-composite-tiles")).to_be_visible()
    tab.get_by_text("failed-composite-tiles").click()
    tab.get_by_role("link", name=re.compile("^[0-9a-f]{8}$")).first.click()
    expect(tab.get_by_text("nir.tif does not exist").first).to_be_visible()
    expect(tab.get_by_text("put it back").first).to_be_visible()
    before = composites(up)
    listed = (up.root / "browser").glob("regions/demo/*/versions/.1/units/composite_tiles/*.failed.json")
    failed = {path.name.removesuffix(".failed.json") for path in listed}
    assert before, "what needed only the other scenes is made"
    assert failed

    hidden.rename(asset)
    open_run(up, tab, run, "Failed")
    choose(tab, "Retry")
    tab.get_by_role("alertdialog").get_by_role("button", name="Retry").click()
    assert open_run(up, tab, run, "Completed") == "Completed"

    after = composites(up)
    assert {path: after[path] for path in before} == before, "nothing that stood was made again"
    manifest = json.loads((version(up) / "dataset.json").read_text())
    assert manifest["failures"] == []
    made = {
        path.name.rpartition("-")[0] for path in after.keys() - before.keys() if "composites" in path.parts
    }
    assert made == failed, "the tiles that had read the missing scene, and no other"
    with up.client() as client:
        assert client.read_flow_run(run).run_count == 2


@pytest.mark.timeout(300)
def test_a_run_is_started_from_the_form_with_a_changed_field(up, region, tab):
    run = start(up, region)
    open_run(up, tab, run, "Completed")
    before = composites(up)

    choose(tab, "Copy to new run")
    size = field(tab, r"Tile \(px\)")
    size.fill("-3")
    tab.get_by_role("button", name="Submit").click()
    assert "greater than or equal to 16" in size.evaluate("one => one.validationMessage")
    assert size.evaluate("one => document.activeElement === one"), "the form leads to the wrong field"

    size.fill("256")
    key = field(tab, "Key class")
    assert key.input_value() == "crop"
    key.fill("tree")
    with tab.expect_response(lambda one: "create_flow_run" in one.url) as answer:
        tab.get_by_role("button", name="Submit").click()
    assert answer.value.status == 201
    assert open_run(up, tab, answer.value.json()["id"], "Failed", "Completed") == "Completed"

    resolved = yaml.safe_load((version(up) / "region.yaml").read_text())
    assert resolved["dataset"]["select"]["key_class"] == "tree"
    assert composites(up) == before, "another selection reads no imagery"


def open_deployment(up, tab, name):
    """Open the page of a deployment; returns its id."""
    with up.client() as client:
        found = client.read_deployment_by_name(name).id
    tab.goto(f"{up.ui}/v2/deployments/deployment/{found}")
    return found


def test_a_schedule_is_switched_on_by_one_click(up, tab):
    from playwright.sync_api import expect

    def active(client):
        return {
            one.slug: one.active for one in client.read_deployment_by_name("refresh-region/cell").schedules
        }

    open_deployment(up, tab, "refresh-region/cell")
    switch = tab.get_by_role("switch", name="toggle At 03:00 AM, on day 1 of the month")
    with up.client() as client:
        before = active(client)
        for expected in (True, False):
            with tab.expect_response(lambda one: "/schedules/" in one.url and one.request.method == "PATCH"):
                switch.click()
            expect(switch).to_be_checked(checked=expected)
            assert active(client) == before | {"boadella": expected}


@pytest.mark.timeout(300)
def test_a_backfill_is_started_from_the_form(up, region, tab):
    from playwright.sync_api import expect

    open_deployment(up, tab, "backfill-regions/cell")
    tab.get_by_role("button", name="Run").first.click()
    tab.get_by_role("menuitem", name="Custom run").click()
    tab.get_by_text("Select", exact=True).click()
    tab.get_by_role("option", name="build_dataset").click()
    tab.get_by_role("button", name="Add item").first.click()
    path = field(tab, "regions")
    path.press_sequentially("browser/region.yaml")
    path.blur()
    with tab.expect_response(lambda one: "create_flow_run" in one.url) as answer:
        tab.get_by_role("button", name="Submit").click()
    assert answer.value.status == 201, answer.value.text()
    assert open_run(up, tab, answer.value.json()["id"], "Failed", "Completed") == "Completed"
    tab.get_by_role("tab", name="Artifacts").click()
    expect(tab.get_by_text("cells-build-dataset")).to_be_visible()
    tab.get_by_text("cells-build-dataset").click()
    tab.get_by_role("link", name=re.compile("^[0-9a-f]{8}$")).first.click()
    expect(tab.get_by_text("done", exact=True).first).to_be_visible()
    cell = version(up).parent.parent.name
    with up.client() as client:
        runs = client.request(
            "POST", "/flow_runs/filter", json={"flow_runs": {"tags": {"all_": ["backfill"]}}}
        )
    named = {one["name"]: one["state_type"] for one in runs.json()}
    assert named[f"build-dataset/demo/{cell}"] == "COMPLETED"
