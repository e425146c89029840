# A part of Python's own tests, with every object of it from malloc.
export PYTHONMALLOC=malloc PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
exec /usr/bin/python3 -m unittest -v test.test_json test.test_dict test.test_re test.test_list test.test_set test.test_heapq \
    test.test_collections test.test_textwrap test.test_csv test.test_unpack test.test_bool test.test_ordered_dict
