"""A worker process imports nothing that merely lies in the working folder."""

from folds.execution.worker import Worker


def test_a_module_that_lies_in_the_folder_is_not_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("json", "torch", "numpy"):
        (tmp_path / f"{name}.py").write_text("open('was-run', 'w')\n", encoding="utf-8")
    process = Worker(1)._start()
    process.communicate("", timeout=60)
    assert not (tmp_path / "was-run").exists()
