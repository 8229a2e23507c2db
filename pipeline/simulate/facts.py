"""What is known, and what is assumed, about a national day of QR check-ins: every figure with its source.

"Assumption" marks what no published source gives: sweep those before you draw a conclusion from them.
"""

from datetime import date
from typing import Final, NamedTuple

#: Indonesia's PeduliLindungi had about 8 million check-ins that Sunday (the health minister, 20 Sep 2021).
BUSY_SUNDAY: Final = date(2021, 9, 19)
MOST_CHECK_INS: Final = 8_000_000

#: Share of check-ins by local hour 00–23, in %: Malaysia's open MySejahtera data, Sunday 19 Sep 2021, 22.0 M check-ins.
HOURLY_SHARES: Final = (
    *(0.04, 0.03, 0.02, 0.03, 0.06, 0.34, 1.56, 4.21, 6.10, 7.19, 8.50, 8.94),
    *(8.76, 7.76, 7.44, 7.42, 7.24, 7.41, 7.52, 5.23, 2.86, 1.08, 0.18, 0.08),
)

#: Check-ins per person and day: the same data, 22.0 M check-ins by 8.73 M people.
CHECK_INS_PER_PERSON: Final = 2.5

#: Check-ins per venue and day: lognormal, cut off above; a fit to PeduliLindungi's 56,000 venues (Dec 2021) and its
#: published two-week totals of malls, hotels, restaurants and attractions, which gives about 8.4 M a day.
VENUE_MEDIAN: Final = 25
VENUE_SIGMA: Final = 1.9
VENUE_MOST: Final = 70_000
#: 8 M check-ins at 56,000 venues.
CHECK_INS_PER_VENUE: Final = 143


class Category(NamedTuple):
    """One kind of venue. Everything in it is an assumption; hours are local, 24 shares of any scale."""

    name: str
    #: Share of all check-ins, relative to the others.
    share: float
    #: Dwell is lognormal: median in minutes, and sigma.
    dwell_median: float
    dwell_sigma: float
    #: Where the category's venues stand in the size distribution, in standard deviations of log size over the median.
    #: Malls from the two-week totals (300,000–500,000 each), hotels, restaurants and attractions likewise.
    size: float
    #: Hour of closing, at which whoever is left goes home; None: open all night.
    closes: int | None
    #: How eagerly people come, hour by hour: only relative to the other categories, as HOURLY_SHARES holds overall.
    eagerness: str
    #: Share of scans that stand for a family of 2–6.
    families: float
    #: Share of visitors who come in bursts: a train, a shift, a service, the doors opening.
    bursts: float
    #: Fresh air, in room volumes an hour, and floor area a person, in m².
    air_changes: float
    floor_area: float


#: Eagerness is one digit an hour, 00–23.
CATEGORIES: Final = (
    Category("minimarket", 0.30, 12, 0.6, 1.0, None, "111111466666666666666642", 0.10, 0.00, 1.5, 4.0),
    Category("mall", 0.22, 110, 0.6, 3.2, 22, "000000001178888888886200", 0.25, 0.03, 4.0, 6.0),
    Category("office", 0.16, 480, 0.2, 1.8, None, "100012799532345321112210", 0.00, 0.20, 3.0, 10.0),
    Category("restaurant", 0.14, 60, 0.5, 1.3, 23, "000000013446998544799521", 0.25, 0.00, 5.0, 2.0),
    Category("transport", 0.09, 25, 0.5, 2.3, None, "211149877655555667765432", 0.10, 0.50, 6.0, 2.0),
    Category("worship", 0.04, 60, 0.3, 1.3, 22, "000395778765943363584100", 0.20, 0.50, 2.0, 1.5),
    Category("attraction", 0.04, 150, 0.5, 2.3, None, "000000025899987766643210", 0.35, 0.05, 2.0, 8.0),
)
#: Spread of the sizes within a category, in the same standard deviations. Assumption.
SIZE_SPREAD: Final = 0.7
#: No stay is longer than this many hours, whatever the lognormal says. Assumption.
LONGEST_STAY: Final = 16
#: Share of restaurants that would lie in a mall; those too large for the one they draw do not. Assumption.
RESTAURANTS_IN_MALLS: Final = 0.30

#: Trains, shifts, services at one venue come this many minutes apart, and who comes with one scans seconds after it.
#: Assumptions.
BURST_MINUTES: Final = (6, 20)
BURST_SECONDS: Final = 15.0
#: The front end stalls this often a day, for so many seconds, and delivers what has piled up at STALL_RATE times the
#: usual rate: the "3 times more for seconds" to be allowed for over the busiest half hour. Assumption.
STALLS: Final = 100
STALL_SECONDS: Final = (3.0, 9.0)
STALL_RATE: Final = 3.0

#: Share of visits whose check-out is never scanned. Assumption; sweep 0.40–0.95.
MISSING_CHECK_OUTS: Final = 0.70
#: Of all scans: the identical record sent again up to RETRY_SECONDS later. Assumption.
RETRIES: Final = 0.03
RETRY_SECONDS: Final = 60
#: Of check-ins: the visitor scans in once more up to RESCAN_MINUTES later, while there. Assumption.
RESCANS: Final = 0.02
RESCAN_MINUTES: Final = 30
#: Of all scans: a second app on the phone sends the same scan under its own event_id. Assumption.
SECOND_APPS: Final = 0.01
#: How late scans arrive: (share, up to so many seconds). Assumption. The last are visits of earlier days.
LATENESS: Final = ((0.95, 5.0), (0.04, 300.0), (0.009, 21_600.0))
EARLIER_DAYS: Final = 0.001
LATEST_DAYS: Final = 10
#: Share of phones whose clock is off by more than the first, at most the second number of seconds. Assumption.
WRONG_CLOCKS: Final = 0.01
WRONG_CLOCK_SECONDS: Final = (300.0, 7200.0)
#: One scan for a whole group that says it is one person, so that venues "don't fill" (seen in Indonesia in 2021): share
#: of the scans of these categories. Assumption.
HIDDEN_GROUPS: Final = 0.10
HIDDEN_GROUP_CATEGORIES: Final = ("restaurant", "attraction")
#: Sizes of families and groups, 2–6, and how often. Assumption.
GROUP_SIZES: Final = ((2, 0.45), (3, 0.25), (4, 0.18), (5, 0.08), (6, 0.04))
#: Lines that are no scan, over the valid ones. Assumption.
MALFORMED: Final = 0.001

#: Phones that write local time with its offset; that leave out what has a default; that send a field we do not know;
#: readers at the door. Shares of phones. Assumptions.
LOCAL_TIMES: Final = 0.25
LEAN_PHONES: Final = 0.05
NEWER_PHONES: Final = 0.04
GATES: Final = 0.06

#: A venue's capacity over its expected peak: lognormal, so that 1 venue in 30 is too small. Assumption.
CAPACITY_MARGIN: Final = (0.45, 0.25)
#: Share of venues without a registered capacity, floor area, ventilation. Assumptions.
NO_CAPACITY: Final = 0.03
NO_FLOOR_AREA: Final = 0.20
NO_VENTILATION: Final = 0.50


class Area(NamedTuple):
    """A city: Indonesian administrative code, weight, degrees north and east, hours east of UTC."""

    code: str
    weight: float
    latitude: float
    longitude: float
    hours: int


#: Indonesia's three time zones by their hours east of UTC: WIB, WITA, WIT. None has summer time.
TIME_ZONES: Final = {7: "Asia/Jakarta", 8: "Asia/Makassar", 9: "Asia/Jayapura"}

#: Large cities of all three zones; weights are their rounded populations in millions, coordinates to 0.01°.
AREAS: Final = (
    Area("31.71", 1.1, -6.18, 106.83, 7),
    Area("31.72", 1.8, -6.14, 106.88, 7),
    Area("31.73", 2.4, -6.17, 106.76, 7),
    Area("31.74", 2.2, -6.26, 106.81, 7),
    Area("31.75", 3.0, -6.23, 106.90, 7),
    Area("32.71", 1.0, -6.60, 106.80, 7),
    Area("32.73", 2.4, -6.91, 107.61, 7),
    Area("32.75", 2.5, -6.24, 107.00, 7),
    Area("32.76", 2.1, -6.40, 106.82, 7),
    Area("36.71", 1.9, -6.18, 106.63, 7),
    Area("33.72", 0.5, -7.57, 110.82, 7),
    Area("33.74", 1.7, -6.99, 110.42, 7),
    Area("34.71", 0.4, -7.80, 110.37, 7),
    Area("35.73", 0.8, -7.98, 112.63, 7),
    Area("35.78", 2.9, -7.26, 112.75, 7),
    Area("12.71", 2.4, 3.59, 98.67, 7),
    Area("14.71", 1.0, 0.51, 101.45, 7),
    Area("16.71", 1.7, -2.98, 104.76, 7),
    Area("18.71", 1.2, -5.43, 105.26, 7),
    Area("21.71", 1.2, 1.08, 104.03, 7),
    Area("61.71", 0.7, -0.03, 109.33, 7),
    Area("51.71", 0.7, -8.67, 115.21, 8),
    Area("52.71", 0.4, -8.58, 116.12, 8),
    Area("53.71", 0.4, -10.17, 123.61, 8),
    Area("63.71", 0.7, -3.32, 114.59, 8),
    Area("64.71", 0.7, -1.24, 116.85, 8),
    Area("64.72", 0.8, -0.50, 117.15, 8),
    Area("71.71", 0.5, 1.49, 124.84, 8),
    Area("73.71", 1.4, -5.14, 119.43, 8),
    Area("81.71", 0.3, -3.70, 128.18, 9),
    Area("91.71", 0.4, -2.53, 140.72, 9),
    Area("92.71", 0.3, -0.88, 131.25, 9),
)
#: Spread of the venues around their city's middle, in degrees (0.01° is about 1.1 km). Assumption.
CITY_SPREAD: Final = 0.03
#: The city of `--city`.
ONE_CITY: Final = "35.78"
