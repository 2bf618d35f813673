"""What people call the columns of click logs: evidence of what a column means, to be confirmed by what it holds."""

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

LEAKS = _listed(
    "click clicks clicked clk nonclk purchase purchased purchases buy bought ordered conversion converted dwell watch watched "
    "watchtime playtime listened rating ratings stars like liked dislike disliked shared follow followed comment commented cart "
    "revenue gmv paid finish finished completed completion review reviewed skip skipped bounce feedback engagement response "
    "outcome label target"
)
"""Words for what happens after an item was shown."""

BEFORE = _listed("previous prev past last history hist avg mean prior ctr total before")
"""Words for what was known already: a count of earlier clicks is no outcome."""

EVENTS = _listed("event request impression session trace transaction auction uuid guid row index record log")
CODES = _listed(
    "id code type class level group zip zipcode postcode cate category cat brand segment gender bucket bin flag kind status hour "
    "weekday dayofweek dow month slot position pos rank"
)
"""Words for numbers that are names: 7 is not more than 6."""

MEASURES = _listed(
    "age year years count num number price cost amount duration minutes seconds hours days length size width height weight score "
    "quantity volume distance stock discount percent popularity"
)
"""Words for numbers that are more or less of something."""


def plain(name: str) -> str:
    """A name without what people write it differently by.

    >>> plain("movieId") == plain("Movie_ID") == "movieid"
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
    """How good a name this is, 0 the best: as it is known, or else by its end; None for no such name.

    >>> rank("product", ITEM) < rank("shop_item_id", ITEM), rank("colour", ITEM)
    (True, None)
    """
    short = plain(name)
    if short in known:
        return known.index(short)
    ends = (place for place, end in enumerate(known) if len(end) > 3 and short.endswith(end))
    return next((len(known) + place for place in ends), None)
