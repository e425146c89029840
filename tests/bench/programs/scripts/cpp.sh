# A compiler at work: templates, optimised.
c++ -std=c++17 -O1 -c -o unit.o "$INPUTS/unit.cpp"
cksum < unit.o
