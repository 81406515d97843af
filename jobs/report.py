"""Report: what happened in a store, as pages that one opens in a browser.

    python -m jobs.report --store URI --output DIR
    python -m jobs.report --store URI --output DIR --user-id U    # also a page of this user's memories

Writes `index.html`: the health of the store, what the last night did and changed, rejections, costs with a
projection, times, growth, how fresh the users are, and every run. It shows counts, and no conversation. The
page of a user shows their memories, when they were true and when they were known, the decisions about them
and what was said; it is written for the user that is named, and for nobody else. Every page is one file,
which asks for nothing from elsewhere. Reads the store only; needs no Ray and no model.
"""

from jobs.common.cli import JobConfig, JobError, UsageError, main, say
from jobs.common.run import absolute


class ReportConfig(JobConfig):
    """Settings of a report."""

    store: str
    """Folder or object-store URI of the store."""
    output: str
    """Folder or object-store URI that the pages are written to; those of an earlier report are replaced."""
    user_id: str | None = None
    """Also write a page of the memories of this user, with what was said."""


def run(config: ReportConfig) -> dict:
    """Write the pages and return the summary."""
    from cluster.report.pages import write_report
    from cluster.store.errors import StoreError

    try:
        pages = write_report(absolute(config.store), absolute(config.output), config.user_id)
    except StoreError as error:
        raise JobError(str(error)) from error
    except OSError as error:
        problem = error.strerror or error
        raise UsageError(f"--output {config.output}: {problem}; name a folder to write to") from None
    say(f"[report] {config.output}: {', '.join(pages)}")
    return {"status": "done", "store": config.store, "output": config.output, "pages": pages}


if __name__ == "__main__":
    main(ReportConfig, run, __doc__)
