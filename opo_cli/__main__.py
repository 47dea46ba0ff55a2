"""`python -m opo_cli`, and the console script."""

import signal


def run() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Ctrl-C during imports, or while Python ends, is no traceback. `main` obeys in order.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from opo_cli.cli import main
    from opo_cli.ranks import run_to_end

    run_to_end(main)


if __name__ == "__main__":
    run()
