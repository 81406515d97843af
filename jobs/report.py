"""Report: shows what happened in a store, as pages for a browser.

    python -m jobs.report --store URI --output DIR
    python -m jobs.report --store URI --output DIR --user-id U    # also a page of this user's memories
    python -m jobs.report --store URI --output DIR --questions FILE    # also how well these are answered

Writes `index.html`: the health of the store, what the last night did and changed, rejections, costs with a
projection, times, growth, how fresh the users are, and every run. It shows counts, and no conversation. The
page of a user shows their memories, when they were true and when they were known, the decisions about them
and what was said; it is written for the user that is named, and for nobody else. Every page is one file,
which asks for nothing from elsewhere. Reads the store only; needs no Ray, and a model, the store's embedder,
for questions alone.
"""

import dataclasses

from jobs.common.cli import JobError, UsageError, main, say
from jobs.common.measuring import quality_of
from jobs.common.questions import QuestionFiles, read_questions
from jobs.common.run import StoreConfig, absolute


class ReportConfig(StoreConfig):
    """Settings of a report."""

    output: str
    """Folder or object-store URI that the pages are written to; those of an earlier report are replaced."""
    user_id: str | None = None
    """Also write a page of the memories of this user, with what was said."""
    questions: QuestionFiles = ()
    """Files with questions and their evidence, as jobs.evaluate retrieval reads them: also show what the
    store's search finds of it, now and before the last night."""


def run(config: ReportConfig) -> dict:
    """Write the pages and return the summary."""
    from cluster.report.pages import write_report
    from cluster.store.errors import StoreError

    questions = [one for path in config.questions for one in read_questions(path)]
    store = absolute(config.store)
    try:
        quality = quality_of(store, questions) if questions else None
        pages = write_report(store, absolute(config.output), config.user_id, quality)
    except StoreError as error:
        raise JobError(str(error)) from error
    except OSError as error:
        problem = error.strerror or error
        raise UsageError(f"--output {config.output}: {problem}; name a folder to write to") from None
    say(f"[report] {config.output}: {', '.join(pages)}")
    measured = {"quality": dataclasses.asdict(quality)} if quality else {}
    return {"status": "done", "store": config.store, "output": config.output, "pages": pages, **measured}


if __name__ == "__main__":
    main(ReportConfig, run, __doc__)
