"""Self-check of text-person data sets and of ORBench's lists: counts, missing files, images without a caption, leaks."""

from pathlib import Path

from tvilfm_plugin.data.datasets.check import Report
from tvilfm_plugin.data.datasets.listing import missing_files
from tvilfm_plugin.data.text_person import FOLDERS, LAYOUTS, ORBENCH, counts_of, read_captioned, read_query_lists


def check_text_person(key: str, root: str, folder: str = "", published: bool = True, decode: bool = False) -> Report:
    """Count a data set's people, images and captions, and name what is missing.

    Args:
        key: "cuhk-pedes", "icfg-pedes", "rstpreid" or "orbench".
        folder: the data set's folder below `root`; "" = its usual name.
        published: whether counts must be the published ones (nothing is known of ORBench's).
    """
    expected = dict(LAYOUTS[key].published) if published and key != ORBENCH else {}
    report = Report(key, FOLDERS[key], expected)
    report.dataset_dir = str(Path(root, folder or FOLDERS[key]))
    try:
        images = read_captioned(key, root, folder)
    except (FileNotFoundError, ValueError) as error:
        report.problems.append(str(error))
        return report
    report.counts = counts_of(images)
    paths = [image.path for image in images]
    report.uncaptioned = [image.path for image in images if not image.captions]
    report.compare()
    people = {split: {image.pid for image in images if image.split == split} for split, _ in report.counts}
    if key == ORBENCH:
        paths += _check_lists(report, root, folder)
    elif both := people.get("train", set()) & people.get("test", set()):
        report.problems.append(f"{len(both)} persons are in training and test: {', '.join(map(str, sorted(both)[:8]))}.")
    report.missing = missing_files(paths)
    if decode:
        report.decode(paths)
    return report


def _check_lists(report: Report, root: str, folder: str) -> list[str]:
    """Count ORBench's query lists; returns the images that they name."""
    try:
        lists = read_query_lists(root, folder)
    except (FileNotFoundError, ValueError) as error:
        report.problems.append(str(error))
        return []
    known = {pid for pid, _ in lists.gallery}
    report.counts["gallery", "ids"], report.counts["gallery", "RGB"] = len(known), len(lists.gallery)
    paths = [path for _, path in lists.gallery]
    for name, queries in lists.queries.items():
        infrared = [query.infrared for query in queries if query.infrared]
        report.counts[name, "ids"] = len({query.pid for query in queries})
        report.counts[name, "IR"] = len(infrared)
        report.counts[name, "texts"] = sum(bool(query.text) for query in queries)
        paths += infrared
        if strangers := {query.pid for query in queries} - known:
            report.problems.append(f"{name}: {len(strangers)} persons are asked for and not in the gallery.")
    report.notes += [f"{name}: {count} queries by what no model here sees; left out." for name, count in lists.left_out.items()]
    return list(dict.fromkeys(paths))
