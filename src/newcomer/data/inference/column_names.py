"""Common names of columns in click logs: evidence for their meaning, to be confirmed by the values."""

import re


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


ITEM = _listed(
    "itemid item productid product movieid movie filmid film adgroupid adid ad sku asin articleid article newsid news videoid "
    "video songid song trackid track bookid book isbn listingid listing contentid content creativeid creative gameid game appid "
    "app recipeid recipe hotelid hotel postid post photoid photo goodsid businessid offerid offer courseid course documentid "
    "jobid job restaurantid placeid campaignid iid"
)
USER = _listed(
    "userid user customerid customer visitorid visitor viewerid viewer memberid member clientid client personid person readerid "
    "reader accountid account buyerid buyer reviewerid reviewer profileid deviceid uid cookieid sessionid"
)
LABEL = _listed(
    "label click clicked isclick isclicked clk target y liked like islike converted conversion purchased purchase bought "
    "response rating ratings stars score overall reviewscore reviewrating feedback"
)
TIME = _listed(
    "timestamp time ts eventtime eventtimestamp datetime timems unixtime unixreviewtime date createdat seenat shownat shown seen "
    "occurredat loggedat eventdate day t"
)

WEIGHT = _listed(
    "weight weights sampleweight sampleweights rowweight eventweight instanceweight importanceweight observationweight"
)

OUTCOME_WORDS = _listed(
    "click clicks clicked clk nonclk purchase purchased purchases buy bought ordered conversion converted dwell watch watched "
    "watchtime playtime listened rating ratings stars like liked dislike disliked shared follow followed comment commented cart "
    "revenue gmv paid finish finished completed completion review reviewed skip skipped bounce feedback engagement response "
    "outcome label target"
)
"""Words for outcomes, known only after an impression."""

HISTORY_WORDS = _listed("previous prev past last history hist avg mean prior ctr total before")
"""Words for history: a count of earlier clicks is not an outcome."""

EVENT_WORDS = _listed("event request impression session trace transaction auction uuid guid row index record log")
CODE_WORDS = _listed(
    "id code type class level group zip zipcode postcode cate category cat brand segment gender bucket bin flag kind status hour "
    "weekday dayofweek dow month slot position pos rank"
)
"""Words for numeric codes: 7 is not more than 6."""

QUANTITY_WORDS = _listed(
    "age year years count num number price cost amount duration minutes seconds hours days length size width height weight score "
    "quantity volume distance stock discount percent popularity"
)
"""Words for quantities."""


def normalized(name: str) -> str:
    """Lower-case name without punctuation.

    >>> normalized("movieId") == normalized("Movie_ID") == "movieid"
    True
    """
    return re.sub(r"[\W_]", "", name.lower())


def words(name: str) -> set[str]:
    """The words of a name.

    >>> sorted(words("isBuy_after-click"))
    ['after', 'buy', 'click', 'is']
    """
    return {word.lower() for word in re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])|\d+", name)}


def rank(name: str, known: tuple[str, ...]) -> int | None:
    """Rank of a name, 0 the best: by exact match, else by suffix; None if unknown.

    >>> rank("product", ITEM) < rank("shop_item_id", ITEM), rank("colour", ITEM)
    (True, None)
    """
    short = normalized(name)
    if short in known:
        return known.index(short)
    suffix_ranks = (position for position, end in enumerate(known) if len(end) > 3 and short.endswith(end))
    return next((len(known) + position for position in suffix_ranks), None)
