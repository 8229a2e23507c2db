"""What people see of the pipeline in a real browser, with a worker that really runs behind it."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.site import Site
from tests.waiting import wait_until

pytestmark = pytest.mark.kafka

PAGES = ("/", "/planning", "/api/docs")
IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
VENUE = "ven-000003"
#: Keeps of which kind each message of the feed is, and when the connection breaks.
KEEP_WHAT_THE_FEED_SAYS = """
window.told = [];
const plain = window.fetch;
const listen = async (body) => {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read())
    for (const [, kind] of read.value.matchAll(/^event: (\\w+)$/gm)) window.told.push(kind);
};
window.fetch = async (address, options) => {
  const response = await plain(address, options);
  if (address !== "/api/v1/live" || !response.ok) return response;
  const [ours, theirs] = response.body.tee();
  listen(ours).catch(() => {}).then(() => window.told.push("broken"));
  return new Response(theirs, response);
};
"""
#: Has `endFeed` end the stream as the server does after some minutes, and keeps what the page then says of itself.
END_THE_FEED = """
window.states = [];
new MutationObserver(() => window.states.push(document.body?.dataset.state)).observe(
  document, { attributes: true, attributeFilter: ["data-state"], subtree: true });
const whole = window.fetch;
window.fetch = async (address, options) => {
  const response = await whole(address, options);
  if (address !== "/api/v1/live" || !response.ok) return response;
  const { readable, writable } = new TransformStream();
  const writer = writable.getWriter();
  const reader = response.body.getReader();
  window.endFeed = () => { writer.close(); reader.cancel(); };
  const pass = async () => {
    for (let read = await reader.read(); !read.done; read = await reader.read()) await writer.write(read.value);
  };
  pass().catch(() => {});
  return new Response(readable, response);
};
"""
#: Keeps what a screen reader would be told of alerts, in the order in which it is told.
KEEP_WHAT_IS_ANNOUNCED = """() => {
  window.announced = [];
  const region = document.getElementById("alerts-news");
  if (region.getAttribute("aria-live") !== "polite") throw new Error("nobody would be told");
  const keep = () => window.announced.push(region.textContent);
  new MutationObserver(keep).observe(region, { childList: true, characterData: true, subtree: true });
}"""


def number_in(page: Any, key: str) -> int:
    """A header figure of the live page."""
    return int(page.locator(f'[data-key="{key}"] .value').inner_text().split(" ")[0].replace(",", ""))


def wait_for_number(page: Any, key: str, wanted: int) -> None:
    page.wait_for_function(
        "([key, wanted]) => document.querySelector(`[data-key='${key}'] .value`)?.textContent.replaceAll(',', '') === wanted",
        arg=[key, str(wanted)],
    )


def open_page(page: Any, site: Site, path: str) -> None:
    """Open a page and wait until it shows something."""
    page.goto(site.address + path)
    if path == "/":
        page.wait_for_selector('#figures [data-key="people"]')
        page.wait_for_selector("#day-chart canvas")
        page.wait_for_selector("#top li")
    elif path == "/planning":
        page.wait_for_selector("#venues tr")
        page.wait_for_selector("#week canvas")
    else:
        page.wait_for_selector("details")


def test_the_page_says_what_the_store_says(page: Any, site: Site) -> None:
    open_page(page, site, "/")
    venues = site.ask("/api/v1/venues?limit=500")["items"]
    assert number_in(page, "people") == sum(venue["occupancy"] for venue in venues) > 0
    assert number_in(page, "open") == sum(venue["occupancy"] > 0 for venue in venues)
    assert number_in(page, "full") == sum((venue["ratio"] or 0) >= 1 for venue in venues)
    fullest = max(venues, key=lambda venue: venue["ratio"] or 0)
    assert fullest["name"] in page.locator("#top li").first.inner_text()
    assert "expected" in page.locator('[data-key="people"]').inner_text()
    assert page.locator("#areas tr").count() == len(site.ask("/api/v1/areas")["items"])


def test_people_who_come_are_seen_without_a_reload(page: Any, site: Site) -> None:
    open_page(page, site, "/")
    before = number_in(page, "people")
    site.check_in(VENUE, 40)
    wait_for_number(page, "people", before + 40)
    assert site.ask(f"/api/v1/venues/{VENUE}/now")["occupancy"] >= 40


def test_the_fullest_as_expected_are_a_list_of_their_own(page: Any, site: Site) -> None:
    open_page(page, site, "/")
    venues = [each for each in site.ask("/api/v1/venues?limit=500")["items"] if each["capacity"] and each["estimate"]]
    fullest = max(venues, key=lambda each: each["estimate"]["expected"] / each["capacity"])
    page.get_by_role("button", name="Fullest, expected").click()
    first = page.locator("#top li").first
    first.filter(has_text=fullest["name"]).wait_for()
    assert f"counted {fullest['occupancy']:,}" in first.inner_text()


@pytest.mark.long
def test_an_alert_is_raised_and_cleared_before_the_readers_eyes(page: Any, site: Site) -> None:
    """A crowd comes and goes: the list, the map, a screen reader, the view and the topic tell of it, without a reload."""
    alone = {each[3]: at for at, each in enumerate(site.feed()["map"]["fixed"]) if each[3]}
    venues = site.ask("/api/v1/venues?limit=500")["items"]
    calm = [each for each in venues if (each["capacity"] or 0) >= 10 and each["ratio"] < 0.5]
    crowded = min((each for each in calm if each["venue_id"] in alone), key=lambda each: each["capacity"])
    venue, name, capacity = crowded["venue_id"], crowded["name"], crowded["capacity"]
    elsewhere = max(calm, key=lambda each: each["capacity"])["venue_id"]

    def wait_for_the_map(full: bool) -> None:
        """The feed is composed once a second, so it may lag what the API says of the venue; the page follows it."""

        def levels_told() -> list[str]:
            told = site.feed()
            return [told["levels"][level] for _, level in told["map"]["now"]]

        wait_until(lambda: (levels_told()[alone[venue]] == "full") == full)
        said = f", {levels_told().count('full')} of them full."
        page.wait_for_function(
            "said => document.querySelector('#map canvas').getAttribute('aria-label').includes(said)", arg=said
        )

    def stored() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = site.ask(f"/api/v1/alerts?venue_id={venue}&limit=1")["items"]
        return found

    def heard(pattern: str) -> None:
        page.wait_for_function("pattern => window.announced.some((text) => RegExp(pattern).test(text))", arg=pattern)

    open_page(page, site, "/")
    page.evaluate(KEEP_WHAT_IS_ANNOUNCED)
    earlier = stored()
    visitors = site.check_in(venue, capacity - crowded["occupancy"])
    site.pass_time(1, elsewhere)
    wait_until(lambda: site.ask(f"/api/v1/venues/{venue}/now")["level"] == "full")
    wait_for_the_map(full=True)
    assert stored() == earlier

    site.pass_time(2, elsewhere)
    row = page.locator("#alerts li").filter(has=page.get_by_text(name, exact=True)).first
    row.filter(has_text="warning").wait_for()
    alert = stored()[0]
    assert (alert["level"], alert["cleared_at"]) == ("warning", None)
    assert f"peak {alert['peak']} of {capacity}" in row.inner_text().replace(",", "")

    site.check_out(venue, visitors)
    site.pass_time(6, elsewhere)
    row.filter(has_text="cleared").wait_for()
    # Others clear in these minutes too, and of many at once only some are named.
    heard("crowding alerts? cleared: ")
    wait_for_the_map(full=False)
    heard(f"raised: .*{re.escape(name)}, warning")
    assert page.asked.count(f"{site.address}/") == 1

    cleared = stored()[0]
    assert cleared["alert_id"] == alert["alert_id"]

    def told() -> list[str | None]:
        messages = [each for each in site.messages("crowding-alerts") if each["alert_id"] == alert["alert_id"]]
        return [each["cleared_at"] for each in messages]

    wait_until(lambda: len(told()) == 2)
    raised_at, cleared_at = told()
    assert raised_at is None
    assert cleared_at is not None
    assert datetime.fromisoformat(cleared_at) == datetime.fromisoformat(cleared["cleared_at"])


def test_a_venue_is_found_by_name_with_the_keyboard_alone(page: Any, site: Site) -> None:
    open_page(page, site, "/")
    name = site.ask(f"/api/v1/venues/{VENUE}/now")["name"]
    page.get_by_role("combobox", name="Find a venue by name").focus()
    page.keyboard.type(name.lower(), delay=5)
    page.wait_for_selector("[role=option]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("name => document.getElementById('day-name').textContent === name", arg=name)
    assert re.search(r"counted [\d,]+", page.locator("#day-said").inner_text())
    assert "at this time on the same weekday before" in page.locator("#day-said").inner_text()
    assert name in page.locator("#day-chart").get_attribute("aria-label")


@pytest.mark.long
def test_a_planner_is_told_which_capacity_would_have_been_enough(page: Any, site: Site) -> None:
    open_page(page, site, "/planning")
    plan = next(
        each
        for each in site.ask("/api/v1/planning/venues?limit=500")["items"]
        if each["capacity_for_90"] > each["capacity"]
    )
    page.get_by_role("combobox", name="Find a venue by name").fill(plan["name"])
    page.get_by_role("option").filter(has_text=plan["name"]).first.click()
    page.wait_for_function("text => document.getElementById('answer').textContent.includes(text)", arg=plan["name"])
    said = page.locator("#answer").inner_text().replace(",", "")
    assert f"peaked at {plan['highest_peak']}" in said
    assert f"A capacity of {plan['capacity_for_90']} would have kept every peak under 90 %" in said
    assert f"by the model of presence at most {int(plan['highest_expected'] + 0.5)} were there" in said
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download CSV").click()
    assert "capacity_for_90" in Path(downloading.value.path()).read_text()


@pytest.mark.long
def test_a_planner_is_shown_fewer_days_where_many_take_too_long(page: Any, site: Site) -> None:
    refused = []

    def refuse_once(route: Any) -> None:
        if refused:
            route.fallback()
            return
        refused.append(route.request.url)
        problem = {"what": "the answer took more than 10 s", "where": "the store", "way_out": "ask for fewer days"}
        route.fulfill(status=503, json=problem)

    page.route("**/api/v1/planning?**", refuse_once)
    open_page(page, site, "/planning")
    page.wait_for_selector("#banner:not([hidden])")
    assert len(refused) == 1
    assert "these are 14 days" in page.locator("#banner").inner_text()
    assert page.locator("#days").input_value() == "14"
    page.locator("#days").select_option("7")
    page.wait_for_selector("#banner", state="hidden")


@pytest.mark.long
@pytest.mark.parametrize("path", PAGES)
def test_nothing_is_asked_of_anybody_else_and_the_console_stays_empty(page: Any, site: Site, path: str) -> None:
    open_page(page, site, path)
    page.wait_for_timeout(1_500)
    assert page.asked
    assert [url for url in page.asked if not url.startswith((f"{site.address}/", "data:"))] == []
    assert page.said == []


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing_serious(page: Any, site: Site, path: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    open_page(page, site, path)
    found = [
        (each["id"], each["nodes"][0]["html"][:200], each["nodes"][0].get("failureSummary"))
        for each in Axe().run(page).response["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert found == []


@pytest.mark.long
@pytest.mark.parametrize("width", [360, 768, 3840])
def test_nothing_sticks_out_from_a_phone_to_a_wall_display(page: Any, site: Site, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    for path in PAGES[:2]:
        open_page(page, site, path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.long
def test_stale_data_is_said_and_taken_back(page: Any, site: Site) -> None:
    open_page(page, site, "/")
    page.wait_for_selector("#banner:not([hidden])")
    assert "Stale data. No new scan for" in page.locator("#banner").inner_text()
    before = number_in(page, "people")
    site.check_in(VENUE, 1)
    wait_for_number(page, "people", before + 1)
    page.wait_for_selector("#banner", state="hidden")
    assert "live" in page.locator("#pulse").inner_text()


def test_pictures_for_the_readme(page: Any, site: Site, pytestconfig: pytest.Config) -> None:
    if not pytestconfig.getoption("--screenshots"):
        pytest.skip("pictures are only written with --screenshots")
    IMAGES.mkdir(exist_ok=True)
    for name, path, scheme, width, height in (
        ("live-light", "/", "light", 1440, 1000),
        ("live-dark", "/", "dark", 1440, 1000),
        ("live-phone", "/", "light", 390, 844),
        ("planning", "/planning", "light", 1440, 1000),
    ):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        open_page(page, site, path)
        if path == "/":
            people = number_in(page, "people")
            site.check_in(VENUE, 1)
            wait_for_number(page, "people", people + 1)
            page.wait_for_selector("#banner", state="hidden")
            # The first one is where tests have sent their crowds.
            page.locator("#top li button").nth(1).click()
        page.wait_for_timeout(1_500)
        page.screenshot(path=IMAGES / f"{name}.png", full_page=name == "live-light")


def test_a_page_whose_connection_broke_is_told_only_what_it_missed(page: Any, site: Site) -> None:
    page.add_init_script(KEEP_WHAT_THE_FEED_SAYS)
    open_page(page, site, "/")
    before = number_in(page, "people")
    site.break_connections()
    site.check_in(VENUE, 3)
    wait_for_number(page, "people", before + 3)
    kinds = page.evaluate("window.told")
    assert kinds.count("broken") >= 1
    assert kinds.count("snapshot") == 1
    assert kinds[-1] == "delta"


def test_a_stream_that_the_server_ends_is_gone_on_with_before_anybody_sees_it(page: Any, site: Site) -> None:
    page.add_init_script(END_THE_FEED)
    page.add_init_script(KEEP_WHAT_THE_FEED_SAYS)
    open_page(page, site, "/")
    page.evaluate("window.states = []")
    for _ in range(3):
        before = number_in(page, "people")
        page.evaluate("window.endFeed()")
        site.check_in(VENUE, 2)
        wait_for_number(page, "people", before + 2)
    assert "lost" not in page.evaluate("window.states")
    kinds = page.evaluate("window.told")
    assert (kinds.count("broken"), kinds.count("snapshot")) == (3, 1)
    assert page.said == []


@pytest.mark.long
def test_the_page_finds_a_worker_again_that_was_killed(page: Any, site: Site) -> None:
    page.add_init_script(KEEP_WHAT_THE_FEED_SAYS)
    open_page(page, site, "/")
    site.kill()
    page.wait_for_selector('#banner[data-state="lost"]:not([hidden])')
    assert "Connection lost." in page.locator("#banner").inner_text()
    before = number_in(page, "people")
    site.start()
    page.wait_for_function("() => document.body.dataset.state !== 'lost'")
    site.check_in(VENUE, 7)
    wait_for_number(page, "people", before + 7)
    # Another worker does not know what this page has seen.
    assert page.evaluate("window.told").count("snapshot") == 2


@pytest.mark.long
def test_who_holds_a_token_sees_the_pages_of_a_pipeline_that_wants_one(page: Any, site: Site) -> None:
    """Of nobody else anything is shown; a token that does not hold is said to be one, and asked for again."""
    with site.guarded() as token:
        page.goto(site.address + "/")
        dialog = page.get_by_role("dialog", name="A token, please")
        dialog.wait_for()
        assert page.locator('#figures [data-key="people"]').count() == 0
        dialog.get_by_label("those who hold a token").fill("checkins_nobodys")
        dialog.get_by_role("button", name="Continue").click()
        page.get_by_role("alert").filter(has_text="does not hold").wait_for()
        report = Axe().run(page)
        assert [each["id"] for each in report.response["violations"] if each["impact"] in ("serious", "critical")] == []
        page.get_by_label("those who hold a token").fill(token)
        page.keyboard.press("Enter")
        page.wait_for_selector('#figures [data-key="people"]')
        page.wait_for_selector("#day-chart canvas")
        before = number_in(page, "people")
        site.check_in(VENUE, 5)
        wait_for_number(page, "people", before + 5)

        # It holds on the other pages of the tab, for downloads too.
        page.goto(site.address + "/planning")
        page.wait_for_selector("#venues tr")
        with page.expect_download() as download:
            page.locator("#csv").click()
        assert download.value.suggested_filename.endswith(".csv")
        assert Path(download.value.path()).read_text().startswith("venue_id")

        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("dialog", name="A token, please").wait_for()

        # Once it is revoked, the page is told no more when the stream is asked for anew.
        page.get_by_label("those who hold a token").fill(token)
        page.keyboard.press("Enter")
        page.wait_for_selector("#venues tr")
        page.add_init_script(END_THE_FEED)
        open_page(page, site, "/")
        site.revoke()
        page.evaluate("window.endFeed()")
        page.get_by_role("alert").filter(has_text="does not hold").wait_for()
    assert [line for line in page.said if "401" not in line] == []
