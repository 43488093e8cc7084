"""The HTML pages over HTTP, and in a real browser without a network."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

from tests.backend_process import BackendProcess, run_flow

FLOW = Path(__file__).parent / "flows" / "pages_content.py"
CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
)
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&"


@dataclass(frozen=True)
class Content:
    backend: BackendProcess
    run_url: str
    artifact_url: str

    @property
    def base(self) -> str:
        return self.backend.base_url

    def urls(self) -> list[str]:
        collection = self.artifact_url.rpartition("/")[0]
        project = f"{self.base}/local/pages"
        return [
            f"{self.base}/",
            f"{self.base}/local",
            project,
            self.run_url,
            collection,
            self.artifact_url,
            f"{project}/runs/serve-1",
            f"{project}/artifacts/dataset/corpus/v0",
        ]


@pytest.fixture(scope="module")
def content(shared_backend: BackendProcess, tmp_path_factory: pytest.TempPathFactory) -> Content:
    home = tmp_path_factory.mktemp("pages")
    said = run_flow(shared_backend, Path(sys.executable), FLOW, home, "pages")
    found = dict(line.split(" ", 1) for line in said.splitlines() if " http" in line)
    return Content(shared_backend, found["URL"], found["ARTIFACT"])


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]


def tags_of(text: str) -> Tags:
    parser = Tags()
    parser.feed(text)
    return parser


def fetch(url: str) -> httpx.Response:
    return httpx.get(url, timeout=30)


def test_the_url_that_the_sdk_prints_shows_the_run(content: Content) -> None:
    text = fetch(content.run_url).text
    for shown in (
        "finished",
        "baseline",
        "learning_rate",
        "batch.train",
        "eval/f1",
        "0.8975",
        "run-bert:v0",
        "corpus:v0",
        "best",
        "latest",
        "epoch 1 done",
        "model/config.json",
        "job type train",
    ):
        assert shown in text, shown
    assert text.count("<svg") >= 5
    assert "train/global_step" in text


def test_lists_lead_to_everything(content: Content) -> None:
    seen: set[str] = set()
    waiting = [f"{content.base}/"]
    while waiting:
        url = waiting.pop()
        answer = fetch(url)
        assert answer.status_code == 200, url
        seen.add(url)
        if "html" not in answer.headers["content-type"]:
            continue
        for link in tags_of(answer.text).links:
            target = str(httpx.URL(url).join(link)) if not link.startswith("data:") else url
            here = urlsplit(target).path.startswith(("/local/pages", "/local", "/storage", "/_run"))
            other_project = re.match(r"/local/(?!pages(/|$))", urlsplit(target).path)
            if here and not other_project and target not in seen and "/storage/" not in target:
                waiting.append(target)
    assert {url.rstrip("/") for url in content.urls()} <= {url.rstrip("/") for url in seen}


def test_lineage_is_shown_both_ways(content: Content) -> None:
    text = fetch(content.artifact_url).text
    lineage = text[text.index("Lineage") : text.index("Metadata")]
    assert "/local/pages/runs/train-1" in lineage
    assert "/local/pages/runs/serve-1" in lineage
    assert "report:v0" in lineage
    report = fetch(f"{content.base}/local/pages/artifacts/result/report/v0").text
    assert "run-bert:v0" in report[report.index("Made from") : report.index("Logged by")]


def test_files_can_be_downloaded_from_the_page(content: Content) -> None:
    links = tags_of(fetch(content.artifact_url).text).links
    (config,) = [link for link in links if link.endswith("/config.json")]
    answer = fetch(config)
    assert answer.json() == {"model_type": "bert"}
    assert answer.headers["content-disposition"].startswith("attachment")


def test_a_reference_is_shown_and_not_linked(content: Content) -> None:
    text = fetch(f"{content.base}/local/pages/artifacts/dataset/corpus/v0").text
    assert "custom://&lt;b&gt;bucket" in text
    assert not [link for link in tags_of(text).links if "custom" in link]


def test_an_alias_stands_for_its_version(content: Content) -> None:
    assert "run-bert:v0" in fetch(content.artifact_url.replace("/v0", "/best")).text


def test_no_value_becomes_markup(content: Content) -> None:
    for url in content.urls():
        tags = tags_of(fetch(url).text)
        assert not {"script", "img", "b", "i", "iframe", "form"} & set(tags.names), url
        assert not [name for name in tags.attributes if name.startswith("on")], url
        assert "style" not in tags.attributes, url


def test_pages_forbid_scripts_and_foreign_requests(content: Content) -> None:
    for url in content.urls():
        headers = fetch(url).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "script-src" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    [
        "/nobody/nothing",
        "/local/pages/runs/none",
        "/local/pages/artifacts/model/none",
        "/local/pages/artifacts/model/run-bert/v99",
        "/local/%3Cscript%3E",
        "/local/pages/nowhere",
    ],
)
def test_what_is_not_there_is_a_plain_404(content: Content, path: str) -> None:
    answer = fetch(content.base + path)
    assert answer.status_code == 404
    assert "<script" not in answer.text


@pytest.mark.parametrize("page", ["0", "-1", "2", "x", "99999999999999999999", "%27"])
def test_any_page_number_is_answered(content: Content, page: str) -> None:
    assert fetch(f"{content.base}/local/pages?page={page}").status_code == 200


def test_pages_answer_on_loopback_names_only(content: Content) -> None:
    answer = httpx.get(content.run_url, headers={"host": "rebound.example"})
    assert answer.status_code == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_pages_only_read(content: Content, method: str) -> None:
    assert httpx.request(method, content.run_url).status_code in (404, 405)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip("needs the Debian package chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield started
        started.close()


@dataclass
class Visit:
    """A browser page that notes what it asks for and complains about."""

    page: Page
    requests: list[str]
    complaints: list[str]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    visit = Visit(page, [], [])
    page.on("request", lambda request: visit.requests.append(request.url))
    page.on("console", lambda message: visit.complaints.append(message.text))
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on("dialog", lambda dialog: visit.complaints.append(dialog.message))
    yield visit
    page.close()


def test_a_browser_asks_this_server_only_and_complains_of_nothing(
    content: Content, visit: Visit
) -> None:
    for url in content.urls():
        visit.page.goto(url, wait_until="networkidle")
        assert visit.page.title().endswith("Runport")
        assert visit.page.title() != "owned"
    origins = {f"{urlsplit(url).scheme}://{urlsplit(url).netloc}" for url in visit.requests}
    assert origins == {content.base}
    assert visit.complaints == []


def test_a_browser_shows_hostile_text_as_text(content: Content, visit: Visit) -> None:
    visit.page.goto(content.run_url)
    assert visit.page.locator("h1").inner_text() == f"bert-base {HOSTILE}"
    assert visit.page.locator("figure svg").count() >= 5
    box = visit.page.locator("figure svg .series").first.bounding_box()
    assert box is not None


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_page_is_wider_than_its_window(content: Content, visit: Visit, width: int) -> None:
    visit.page.set_viewport_size({"width": width, "height": 800})
    for url in content.urls():
        visit.page.goto(url)
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width, url


def test_links_lead_from_the_root_to_the_run_and_to_its_model(
    content: Content, visit: Visit
) -> None:
    page = visit.page
    page.goto(content.base)
    page.get_by_role("link", name="pages", exact=True).first.click()
    page.get_by_role("link", name="bert-base").first.click()
    assert page.url == content.run_url
    page.get_by_role("link", name="run-bert:v0").first.click()
    assert page.url == content.artifact_url
    page.get_by_role("link", name="serve-bert").click()
    assert page.url.endswith("/runs/serve-1")


def test_the_browser_can_be_stopped_from_leaving(content: Content, visit: Visit) -> None:
    # The assertion above is worth something only if a leak would be seen.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        foreign = f"http://127.0.0.1:{listener.getsockname()[1]}/leak.png"
        visit.page.goto(content.run_url)
        with pytest.raises(Error):
            visit.page.evaluate(f"fetch({foreign!r})")
    assert any("Content Security Policy" in complaint for complaint in visit.complaints)
