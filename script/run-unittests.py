"""Runs the unittest files below a folder and writes their numbers in the form of vitest's JSON report.

usage: run-unittests.py FOLDER REPORT
"""

import json
import os
import sys
import unittest


class Result(unittest.TextTestResult):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.outcomes = []

    def note(self, test, status):
        self.outcomes.append({"fullName": str(test), "status": status})

    def addSuccess(self, test):
        super().addSuccess(test)
        self.note(test, "passed")

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.note(test, "failed")

    def addError(self, test, error):
        super().addError(test, error)
        self.note(test, "failed")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note(test, "pending")


def main():
    folder, report = sys.argv[1:]
    suite = unittest.TestSuite()
    for directory, _, files in os.walk(folder):
        if any(name.startswith("test_") and name.endswith(".py") for name in files):
            # A loader keeps the top directory of its first discovery.
            suite.addTests(unittest.TestLoader().discover(directory, "test_*.py", directory))
    result = unittest.TextTestRunner(verbosity=2, resultclass=Result).run(suite)
    count = {status: sum(outcome["status"] == status for outcome in result.outcomes) for status in ("passed", "failed", "pending")}
    failed = count["failed"] > 0
    with open(report, "w") as file:
        json.dump(
            {
                "numPassedTests": count["passed"],
                "numFailedTests": count["failed"],
                "numPendingTests": count["pending"],
                "numTodoTests": 0,
                "testResults": [
                    {"name": folder, "status": "failed" if failed else "passed", "assertionResults": result.outcomes}
                ],
            },
            file,
        )
    sys.exit(1 if failed else 0)


main()
