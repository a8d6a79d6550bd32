"""Routes, schedules, durations and binding expressions."""

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_host.errors import HostError
from local_host.expressions import BlobPattern, resolve_expressions, resolve_settings
from local_host.ncrontab import parse_schedule
from local_host.routes import Route
from local_host.settings import HostJson
from local_host.timespan import parse_timespan

GUID = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"


@pytest.mark.parametrize(
    ("template", "path", "found"),
    [
        ("", "/", {}),
        ("a/b", "/A/B", {}),
        ("a/b", "/a", None),
        ("a/b", "/a/b/c", None),
        ("a/{x}", "/a/b%2Fc", {"x": "b/c"}),
        ("a/{x?}", "/a", {}),
        ("a/{x=7}", "/a", {"x": "7"}),
        ("a/{x:int?}", "/a/b", None),
        ("a/{x:int}", "/a/-12", {"x": "-12"}),
        ("a/{x:int}", "/a/99999999999", None),
        ("a/{x:long}", "/a/99999999999", {"x": "99999999999"}),
        ("a/{x:guid}", f"/a/{GUID}", {"x": GUID}),
        ("a/{x:bool}", "/a/True", {"x": "True"}),
        ("a/{x:alpha}", "/a/b1", None),
        ("a/{x:length(2,3)}", "/a/bcd", {"x": "bcd"}),
        ("a/{x:length(2)}", "/a/bcd", None),
        ("a/{x:minlength(2):maxlength(3)}", "/a/b", None),
        ("a/{x:range(1,5)}", "/a/6", None),
        ("a/{x:min(3)}", "/a/3", {"x": "3"}),
        ("a/{x:max(3)}", "/a/4", None),
        ("a/{x:datetime}", "/a/2026-01-02", {"x": "2026-01-02"}),
        ("a/{x:double}", "/a/1.5e3", {"x": "1.5e3"}),
        (r"a/{x:regex(^\d{{3}}$)}", "/a/123", None),
        (r"a/{x:regex(^[0-9.]+$)}", "/a/1.2.840", {"x": "1.2.840"}),
        ("a/{name}.{ext}", "/a/b.c.d", {"name": "b.c", "ext": "d"}),
        ("a/{*rest}", "/a/b/c", {"rest": "b/c"}),
        ("a/{**rest}", "/a", {}),
        ("{*rest}", "/", {}),
        ("studies/{s}/series/{t?}", "/studies/1/series", {"s": "1"}),
    ],
)
def test_a_route_takes_its_paths_alone(
    template: str, path: str, found: dict[str, str] | None
) -> None:
    assert Route(template).match(path) == found


@pytest.mark.parametrize("template", ["{*a}/b", "a/{x:nosuch}", "a/{x", "a/{x:range(1)}"])
def test_a_route_that_makes_no_sense_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="route"):
        Route(template)


def test_the_more_specific_route_ranks_first() -> None:
    templates = ["{*rest}", "a/{*rest}", "a/{x}", "a/{x:int}", "a/b", "{x}/b"]
    ranked = sorted(templates, key=lambda one: Route(one).rank)
    assert ranked == ["a/b", "a/{x:int}", "a/{x}", "a/{*rest}", "{x}/b", "{*rest}"]


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4))
def test_any_value_survives_its_way_through_a_route(values: list[str]) -> None:
    from urllib.parse import quote

    template = "/".join(f"{{p{n}}}" for n in range(len(values)))
    path = "/".join(quote(value, safe="") for value in values)
    expected = {f"p{n}": value for n, value in enumerate(values)}
    assert Route(template).match(f"/{path}") == expected


NOON = datetime(2026, 2, 27, 12, 0, 0, tzinfo=UTC)  # a Friday


@pytest.mark.parametrize(
    ("schedule", "following"),
    [
        ("0 */5 * * * *", NOON + timedelta(minutes=5)),
        ("*/10 * * * * *", NOON + timedelta(seconds=10)),
        ("0 0 9-17 * * MON-FRI", NOON + timedelta(hours=1)),
        ("0 30 9 * * 1", datetime(2026, 3, 2, 9, 30, tzinfo=UTC)),
        ("0 0 0 29 2 *", datetime(2028, 2, 29, tzinfo=UTC)),
        ("0 0 0 1 JAN,JUL *", datetime(2026, 7, 1, tzinfo=UTC)),
        ("0 0 0 13 * FRI", datetime(2026, 3, 13, tzinfo=UTC)),
        ("15 * * * *", NOON + timedelta(minutes=15)),
        ("0 0 23 31 * *", datetime(2026, 3, 31, 23, tzinfo=UTC)),
        ("00:01:30", NOON + timedelta(seconds=90)),
    ],
)
def test_a_schedule_gives_its_next_time(schedule: str, following: datetime) -> None:
    assert parse_schedule(schedule, UTC)(NOON) == following


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "* * *",
        "60 * * * * *",
        "* * * 0 * *",
        "* * * * 13 *",
        "5-1 * * * * *",
        "*/0 * * * * *",
        "a * * * * *",
        "00:00:00",
        "25:00:00",
    ],
)
def test_a_wrong_schedule_is_refused(schedule: str) -> None:
    with pytest.raises(ValueError):
        parse_schedule(schedule, UTC)


def test_a_day_that_never_comes_is_refused() -> None:
    with pytest.raises(ValueError, match="never"):
        parse_schedule("0 0 0 30 2 *", UTC)(NOON)


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)),
    st.sampled_from([UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")]),
    st.integers(0, 59),
    st.integers(0, 23),
)
def test_the_next_time_is_later_and_fits_the_fields(
    naive: datetime, zone: tzinfo, minute: int, hour: int
) -> None:
    after = naive.replace(tzinfo=UTC)
    following = parse_schedule(f"0 {minute} {hour} * * *", zone)(after)
    assert after < following <= after + timedelta(days=2, hours=2)
    local = following.astimezone(zone)
    gap = zone is not UTC and local.month in (3, 4) and (local.hour, local.minute) != (hour, minute)
    assert (local.minute, local.hour) == (minute, hour) or gap


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:00:02.5", 2.5),
        ("01:00:00", 3600),
        ("1.00:00:00", 86400),
        ("00:05", 300),
        ("-00:00:01", -1),
    ],
)
def test_a_timespan_reads_as_dotnet_writes_it(text: str, seconds: float) -> None:
    assert parse_timespan(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "5", "24:00:00", "00:60:00", "x", "1:2:3:4"])
def test_a_wrong_timespan_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_timespan(text)


def test_expressions_take_the_triggers_data() -> None:
    data = {"name": "x", "Nested": {"id": 7}}
    assert resolve_expressions("a/{name}/{nested.ID}.txt", data) == "a/x/7.txt"
    assert len(resolve_expressions("{rand-guid}", {})) == 36
    assert resolve_expressions("{DateTime:yyyy}", {}).startswith("20")
    with pytest.raises(ValueError, match="missing"):
        resolve_expressions("{missing}", data)


def test_settings_are_filled_in_and_a_missing_one_is_named() -> None:
    assert resolve_settings("%A%-x-%B%", {"A": "1", "B": "2"}, "here") == "1-x-2"
    with pytest.raises(HostError, match=r"here names %C%.*no setting C"):
        resolve_settings("%C%", {}, "here")


@pytest.mark.parametrize(
    ("path", "blob", "found"),
    [
        ("box/{name}", "a/b.txt", {"name": "a/b.txt"}),
        ("box/{name}.txt", "a.bin", None),
        ("box/in/{study}/{name}.dcm", "in/1.2/3.dcm", {"study": "1.2", "name": "3"}),
        ("box/in/{name}", "out/x", None),
        ("box", "anything/at all", {}),
    ],
)
def test_a_blob_path_takes_its_blobs_alone(
    path: str, blob: str, found: dict[str, str] | None
) -> None:
    assert BlobPattern(path).match(blob) == found


def test_host_json_ignores_case_and_the_environment_overrides_it() -> None:
    content = {"extensions": {"Queues": {"batchSize": 4}}}
    host = HostJson(content, {"AzureFunctionsJobHost__extensions__blobs__poison": "2"})
    assert host.get("Extensions", "queues", "BATCHSIZE") == 4
    assert host.integer("extensions", "blobs", "poison", default=5, least=1, most=9) == 2
    override = HostJson(content, {"AZUREFUNCTIONSJOBHOST__extensions__queues__batchSize": "9"})
    assert override.get("extensions", "queues", "batchSize") == "9"
