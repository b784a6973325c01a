"""A headless Chromium for tests of pages, driven over its pipe: real keys and pointers, no further package."""

import json
import os
import shutil
import subprocess
import threading

FOUND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
REASON = "there is no Chromium (chromium, google-chrome) to open the page with"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
TO_BROWSER, FROM_BROWSER = 3, 4  # the descriptors that Chromium's pipe has
LONGEST_S = 120  # after which the browser is ended
KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "End": 35, "Home": 36, "Tab": 9}


class EndedError(RuntimeError):
    """The browser has ended."""


class Browser:
    """One page of a headless Chromium.

    Args:
        profile: an empty folder for its files.
        size: width and height of the window, pixels.

    Raises:
        EndedError: it does not start, or ran too long.
    """

    def __init__(self, profile, size=(1280, 800)):
        command_ends, answer_ends = os.pipe(), os.pipe()

        def connect():
            os.dup2(command_ends[0], 10), os.dup2(answer_ends[1], 11)  # away from 3 and 4, which may be among them
            os.dup2(10, TO_BROWSER), os.dup2(11, FROM_BROWSER)

        words = [FOUND, *FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", "about:blank"]
        self._process = subprocess.Popen(
            words, close_fds=False, preexec_fn=connect, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._timer = threading.Timer(LONGEST_S, self._process.kill)
        self._timer.daemon = True
        self._timer.start()
        os.close(command_ends[0]), os.close(answer_ends[1])
        self._commands, self._answers = os.fdopen(command_ends[1], "wb"), os.fdopen(answer_ends[0], "rb")
        self._count, self._session = 0, None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        self.call("Page.enable")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._timer.cancel()
        self._process.terminate()
        self._process.wait(timeout=30)
        self._commands.close(), self._answers.close()

    def call(self, method, **params):
        """The result of a command of the DevTools protocol."""
        self._count += 1
        command = {"id": self._count, "method": method, "params": params}
        command |= {"sessionId": self._session} if self._session else {}
        try:
            self._commands.write(json.dumps(command).encode() + b"\0")
            self._commands.flush()
        except BrokenPipeError:
            raise EndedError from None
        while (answer := self._next()).get("id") != self._count:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url):
        """Load a page."""
        self.call("Page.navigate", url=url)
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def value(self, expression):
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key):
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def touch(self, *points):
        """Touch the first point, in pixels of the window, move over the others, and let go."""
        for kind, point in zip(["touchStart"] + ["touchMove"] * (len(points) - 1), points, strict=True):
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": point[0], "y": point[1]}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def _next(self):
        """The next message of the browser."""
        message = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            if not byte:
                raise EndedError
            message += byte
        return json.loads(message)
