"""`python -m opo_cli`, and the console script."""

import os
import signal
import sys


def run() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Ctrl-C during imports, or while Python ends, is no traceback. `main` obeys in order.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from opo_cli.cli import main
    from opo_cli.ranks import is_joined

    code = main()
    if is_joined():  # After an error: threads that wait for ranks that are gone end in no order.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
