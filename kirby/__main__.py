"""The command `kirby`: starts the command line, or says what to install for it."""

import sys


def main() -> None:
    """Run the command line of kirby[server]."""
    try:
        from kirby.server.cli import main as command_line
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "kirby" and error.name != "kirby.server":
            raise
        sys.exit(f"kirby: the command line needs {error.name}: pip install 'kirby[server]'")
    except KeyboardInterrupt:
        sys.exit(130)
    command_line()


if __name__ == "__main__":
    main()
