"""`python -m bench`, the same as `kaa-bench`.

The import waits for the guard because the process of each instrument imports this module again.
"""

if __name__ == "__main__":
    from kaa_bench.cli import main

    main()
