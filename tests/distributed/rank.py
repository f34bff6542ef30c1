"""One process of a job: runs command lines one after another, as the others do.

    RANK=0 WORLD_SIZE=2 ... python tests/distributed/rank.py COMMANDS.json

Starting a process takes seconds and a command a fraction of one, so that a job runs many.
"""

import faulthandler
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import src.cli


def main() -> int:
    """Run every command; the status is that of the first that fails."""
    faulthandler.enable()
    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        try:
            src.cli.main(arguments)
        except SystemExit as end:
            if end.code:
                print("failed:", " ".join(arguments), file=sys.stderr)
                return int(end.code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
