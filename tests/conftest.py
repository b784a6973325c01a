"""What every test inherits, whoever started pytest: signals, umask and variables; and the order of the tests' files."""

import gc
import os
import re
import signal
import sys

# The user's terminal, language, platform and settings: programs read them, tests set those that they are about.
LEFT_OUT = re.compile(
    r"RANK|WORLD_SIZE|LOCAL_\w+|GROUP_\w+|ROLE_\w+|MASTER_\w+|NNODES|NODE_RANK|SLURM_\w+|TORCHELASTIC_\w+|WANDB_\w+"
    r"|SPIKEVRT_\w+|LANG|LANGUAGE|LC_\w+|TERM|NO_COLOR|FORCE_COLOR|CLICOLOR\w*|PY_COLORS|TQDM_\w+"
    r"|PYTHON(UTF8|IOENCODING|COERCECLOCALE|UNBUFFERED|OPTIMIZE|WARNINGS|SAFEPATH|DEVMODE|FAULTHANDLER|BREAKPOINT)"
    r"|(OMP|MKL|KMP|OPENBLAS|GOMP|NUMEXPR)_\w+|BASH_ENV|ENV|CDPATH|GLOBIGNORE|SHELLOPTS|BASHOPTS|POSIXLY_CORRECT"
)


def pytest_configure():
    for name in filter(LEFT_OUT.fullmatch, list(os.environ)):
        del os.environ[name]
    # Else this process and each that it starts would compile all modules anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # The arrays of the tests are small: a second thread costs more than it gains, most of all beside other workers.
    os.environ |= {"LANG": "C.UTF-8", "COLUMNS": "80", "LINES": "24", "OMP_NUM_THREADS": "1"}

    # As nohup, a shell in the background or a supervisor leaves them, they would reach every process that tests start.
    for number in signal.valid_signals():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # as in every Python; programs that it starts have the default
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o022)


def pytest_collection_modifyitems(items):
    """Bring files with slow tests to the front: of several processes none is left alone with a long one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_terminal_summary(terminalreporter):
    """Say in one line how much of the suite a clone without the files beside it leaves out."""
    left_out = [report for report in terminalreporter.getreports("skipped") if "../shared" in report.longrepr[2]]
    if left_out:
        terminalreporter.write_line(f"{len(left_out)} tests need files of ../shared: see tests/golden/data/README.md")


def pytest_collection_finish():
    """Modules stay until the end: nobody looks through their million objects again and again for what is free."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
