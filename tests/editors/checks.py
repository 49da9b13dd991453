"""Checks that say a line each and are counted. For: the tests of the GIMPs. Not for: what they check."""

count = failures = 0


def check(what, passed):
    global count, failures
    count += 1
    failures += not passed
    print("ok    " if passed else "FAILED", what, flush=True)


def finished():
    """Says how it went, in the words that the callers look for; whether all passed."""
    print(f"all {count} checks passed" if failures == 0 else f"{failures} of {count} checks FAILED",
          flush=True)
    return failures == 0
