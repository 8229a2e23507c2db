"""Write every board to `dashboards/json/`, where Grafana's provisioning reads them."""

from pathlib import Path

from dashboards.boards import BOARDS

JSON = Path(__file__).parent / "json"


def main() -> None:
    """Write the boards, each to the file that is named for its uid, and delete files of boards that are no more."""
    texts = {JSON / f"{board.uid}.json": board.text() for board in BOARDS}
    for path in JSON.glob("*.json"):
        if path not in texts:
            path.unlink()
    for path, text in texts.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
