"""The Luigi target of a published batch."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

import luigi

from tasks.database.completion import find_completed_dates_in_sqlite
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings


class BatchTarget(luigi.Target):
    """A Luigi target for a batch, which exists once the scores of a date with this recipe are published.

    It also exists if a person restored another batch since: the recipe's own batch is then superseded, but its work was
    done. If a model version was given, `exactly` is true: the recipe's own batch must be the published one.
    """

    def __init__(self, date: datetime.date, recipe: str, exactly: bool) -> None:
        self.date = date
        self.recipe = recipe
        self.exactly = exactly

    def __str__(self) -> str:
        return f"published batch of {self.date}, recipe {self.recipe}"

    def exists(self) -> bool:
        """Queries the database, without creating or migrating it."""
        return bool(query_done_dates({self.date: self.recipe}, self.exactly))


def query_done_dates(recipes: Mapping[datetime.date, str], exactly: bool) -> set[datetime.date]:
    """Returns the dates whose scores are published, with one query, without creating or migrating the database.

    Args:
        recipes: recipe of each date.
        exactly: whether the published batch must be the one of the recipe.
    """
    settings = load(DatabaseSettings)
    done = find_completed_dates_in_sqlite(settings.url, recipes, exactly)
    if done is not None:
        return done
    from tasks.database.batches import find_completed_dates
    from tasks.database.connection import connect

    return find_completed_dates(connect(settings), recipes, exactly)
